//! Forms that are wrong, and files that are not what is allowed. None of it leaves a file behind.

use super::{AUTH, Call, Case, OTHER_BUSINESS, Stage, check_shape};
use crate::files::{PNG, image, kept_in};
use crate::mutation::{Random, mutated};
use crate::support::{BUSINESS, Form};
use futures_util::stream;

const PATH: &str = "/v1.0/log_file_from_user/";
const MAX_FILE: usize = 10 * 1024 * 1024;

fn good() -> Form {
    Form::of_file(AUTH, BUSINESS, 1, "photo.png", PNG)
}

fn document(name: &str, bytes: &[u8]) -> Form {
    Form::of_file(AUTH, BUSINESS, 52, name, bytes)
}

/// A call with a body that calls itself a form of this boundary.
fn raw(stage: &Stage, body: impl Into<reqwest::Body>) -> Call {
    stage.channel(PATH).header("content-type", "multipart/form-data; boundary=x").body(body)
}

fn call(stage: &Stage, form: &Form) -> Call {
    raw(stage, form.body("x"))
}

/// Checks the cases; after them the store holds no file.
async fn check(stage: Stage, cases: Vec<Case>) {
    let before = stage.state().await;
    for (number, case) in cases.into_iter().enumerate() {
        stage.check_one(&format!("case-{number}"), case).await;
        assert_eq!(kept_in(stage.router.directory()), 0, "case {number}");
    }
    assert_eq!(stage.state().await, before, "nothing changed and nobody was told");
    // What they differ from is good.
    stage.router.api.send(call(&stage, &good()).request).await.ok();
    assert_eq!(kept_in(stage.router.directory()), 1);
    stage.router.stop().await;
}

#[tokio::test]
async fn fields_that_are_missing_repeated_or_wrong() {
    let stage = Stage::set().await;
    let mut cases = Vec::new();
    let mut case = |what: &str, form: Form, names: &str| {
        cases.push(call(&stage, &form).refused(what, 400, "invalid_field", names));
    };
    for field in ["auth_id", "business_id", "message_type", "file"] {
        case(field, good().without(field), &format!("{field}: is missing"));
    }
    let all = good().text("message_body", "hi");
    for (field, again) in [("auth_id", AUTH), ("business_id", "343"), ("message_type", "1"), ("message_body", "hi")] {
        case(field, all.clone().text(field, again), &format!("{field}: is there more than once"));
    }
    case("two files", good().file("file", "b.png", PNG), "file: is there more than once");
    for (field, value, what) in [
        ("auth_id", "", "auth_id: must not be empty"),
        ("auth_id", "a\u{7}b", "auth_id: must not contain control characters"),
        ("auth_id", &"a".repeat(257), "auth_id: must be at most 256"),
        ("business_id", "", "business_id: must be an integer"),
        ("business_id", "-1", "business_id: must be an integer"),
        ("business_id", "acme", "business_id: must be an integer"),
        ("message_type", "0", "message_type: must be 1, image, or 52, document"),
        ("message_type", "2", "message_type: must be 1, image, or 52, document"),
        ("message_type", "image", "message_type: must be an integer"),
        ("message_body", &"x".repeat(64 * 1024 + 1), "message_body: must be at most 65536 bytes long"),
    ] {
        case(field, good().with(field, value), what);
    }
    let not_text = good().without("auth_id").file("auth_id", "a", b"\xff\xfe");
    case("not UTF-8", not_text, "auth_id: is not UTF-8");
    case("a field in place of a file", good().with("file", "text"), "file: with message_type 1 what is in it must be");
    case("an empty file", good().without("file").file("file", "a.png", b""), "file: must not be empty");
    check(stage, cases).await;
}

#[tokio::test]
async fn files_that_are_not_what_is_allowed() {
    let stage = Stage::set().await;
    let mut cases = Vec::new();
    let mut case = |what: &str, form: Form, names: &str| {
        cases.push(call(&stage, &form).refused(what, 400, "invalid_field", names));
    };
    let images = "file: with message_type 1 what is in it must be one of jpg, jpeg, png, gif";
    for (name, bytes) in
        [("photo.png", &b"%PDF-1.7"[..]), ("photo.png", b"<svg/>"), ("photo.jpg", b"MZ\x90\0"), ("a.csv", b"a,b")]
    {
        case(name, Form::of_file(AUTH, BUSINESS, 1, name, bytes), images);
    }
    let documents = "file: with message_type 52 what is in it must be one of docx, doc, pdf, xls, xlsx, csv";
    for (name, bytes) in [
        ("a.pdf", PNG),
        ("a.docx", b"PK\x03\x04 a zip of something else"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("a.xls", b"<html><table>"),
        ("a.csv", PNG),
        ("a.csv", b"a,b\0c"),
        ("a.csv", b"\x7fELF\x02\x01\x01\0"),
        ("a.txt", b"a,b"),
        ("a", b"a,b"),
        ("a.pdf", b"a,b"),
    ] {
        case(name, document(name, bytes), documents);
    }
    case("a page", document("a.pdf", b"<!doctype html><script>alert(1)</script>"), documents);
    check(stage, cases).await;
}

#[tokio::test]
async fn files_that_are_too_large() {
    let stage = Stage::set().await;
    let over = Form::of_file(AUTH, BUSINESS, 1, "a.png", &image(MAX_FILE + 1));
    let far_over = Form::of_file(AUTH, BUSINESS, 1, "a.png", &image(2 * MAX_FILE)).body("x");
    let words = good().with("message_body", &"x".repeat(MAX_FILE + 1_000_000));
    let pieces: Vec<_> = far_over.chunks(100_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let chunked = reqwest::Body::wrap_stream(stream::iter(pieces));
    let cases = vec![
        call(&stage, &over).refused("a byte more", 413, "file_too_large", "file: must be at most 10485760 bytes long"),
        raw(&stage, far_over).refused("announced", 413, "body_too_large", "its file must be at most 10485760 bytes"),
        raw(&stage, chunked).refused("in chunks", 413, "body_too_large", "its file must be at most 10485760 bytes"),
        call(&stage, &words).refused("words", 413, "body_too_large", "all the rest 262144"),
    ];
    check(stage, cases).await;
}

#[tokio::test]
async fn bodies_that_are_no_forms() {
    let stage = Stage::set().await;
    let text = String::from_utf8_lossy(&good().body("x")).into_owned();
    let mut cases = Vec::new();
    for body in [
        "",
        "{}",
        "--x",
        "--x\r\n",
        "--y--\r\n",
        &text.replace("--x", "--y"),
        &text.replace("--x--", ""),
        &text.replace("\r\n", "\n"),
        &text.replace("form-data", "attachment"),
        &text.replace("; name=", "; nome="),
        &format!("--x\r\n{}", "a: b\r\n".repeat(100_000)),
        &"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n".repeat(1000),
        &"\r\n--x".repeat(100_000),
    ] {
        let what = body.chars().take(30).collect::<String>();
        cases.push(raw(&stage, body.to_owned()).refused(what, 400, "malformed_form", "the body "));
    }
    cases.push(raw(&stage, "--x--\r\n").refused("nothing in it", 400, "invalid_field", "auth_id: is missing"));
    for content_type in [
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=x",
        "application/x-www-form-urlencoded",
        "",
    ] {
        let call = stage.channel(PATH).header("content-type", content_type).body(good().body("x"));
        cases.push(call.refused(content_type, 415, "unsupported_media_type", "multipart/form-data"));
    }
    let without = stage.channel(PATH).body(good().body("x"));
    cases.push(without.refused("no content-type", 415, "unsupported_media_type", "multipart/form-data"));
    for (what, key) in [("empty", "".to_owned()), ("129 characters", "k".repeat(129)), ("a blank", "a b".to_owned())] {
        let call = call(&stage, &good()).header("idempotency-key", key);
        cases.push(call.refused(what, 400, "invalid_field", "Idempotency-Key"));
    }
    check(stage, cases).await;
}

#[tokio::test]
async fn files_of_people_and_businesses_that_there_are_not() {
    let stage = Stage::set().await;
    let mut cases = vec![
        call(&stage, &good().with("auth_id", "nobody")).refused(
            "",
            403,
            "user_not_registered",
            "user is not registered",
        ),
        call(&stage, &good().with("business_id", "999")).refused("", 404, "unknown_business", "business_id"),
    ];
    let elsewhere = good().with("business_id", &OTHER_BUSINESS.to_string());
    cases.push(call(&stage, &elsewhere).refused("another's business", 404, "unknown_business", "business_id"));
    // The other client knows this customer under the same name, and has no such business.
    let theirs = |form: &Form| {
        let request = stage.elsewhere.channel.request(reqwest::Method::POST, PATH);
        let call = Call { path: PATH.to_owned(), request }.header("content-type", "multipart/form-data; boundary=x");
        call.body(form.body("x"))
    };
    cases.push(theirs(&good()).refused("another's token", 404, "unknown_business", "business_id"));
    for (what, authorization) in [("no token", None), ("a wrong token", Some("Bearer tract_wrong"))] {
        let mut call = stage.nobody(reqwest::Method::POST, PATH).header("client-id", "acme");
        if let Some(authorization) = authorization {
            call = call.header("authorization", authorization);
        }
        let call = call.header("content-type", "multipart/form-data; boundary=x").body(good().body("x"));
        cases.push(call.refused(what, 401, "authorization_invalid", "invalid authorization details"));
    }
    check(stage, cases).await;
}

/// Whatever is sent as a form: it is answered, never by a fault of ours.
#[tokio::test]
async fn no_form_makes_the_router_fail() {
    const RUNS: usize = 600;
    let stage = Stage::set().await;
    let seeds: Vec<Vec<u8>> = vec![
        good().text("message_body", "hi").body("x"),
        document("a.csv", b"a,b\n1,2\n").body("x"),
        document("a.docx", b"PK\x03\x04PK\x01\x02word/PK\x05\x06[Content_Types].xml").body("x"),
        document("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1W\0o\0r\0d\0").backwards().body("x"),
    ];
    let mut random = Random::new(7);
    for run in 0..RUNS {
        let seed = random.pick(&seeds).clone();
        let body = mutated(&seed, &seeds, &mut random);
        let call = raw(&stage, body.clone()).header("x-request-id", "r");
        let reply = stage.router.api.send(call.request).await;
        let what = format!("run {run}: {} {}: {:?}", reply.status, reply.body, String::from_utf8_lossy(&body));
        assert!(reply.status < 500, "{what}");
        if reply.status >= 400 {
            check_shape(PATH, "r", &reply, &what);
        }
    }
    stage.router.stop().await;
}
