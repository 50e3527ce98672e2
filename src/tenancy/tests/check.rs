//! Each mistake in a tenants file, with the line and key that it is named with.

use super::*;
use crate::reading::{Located, Source};
use crate::security::url::EgressRules;

fn faults(text: &str) -> Vec<String> {
    match Source::parse("t.toml", text) {
        Err(faults) => faults.iter().map(Located::to_string).collect(),
        Ok(source) => {
            let faults = Declaration::check(&source.value, EgressRules::default());
            source.locate_all(faults).iter().map(Located::to_string).collect()
        }
    }
}

/// A sound file of which one line is replaced.
fn lines() -> Vec<&'static str> {
    vec![
        "[[ect]]",                                              // 1
        "ect_id = \"sprinkle\"",                                // 2
        "fqdn = \"chat.sprinkle.example\"",                     // 3
        "[[client]]",                                           // 4
        "client_id = \"acme\"",                                 // 5
        "ects = [\"sprinkle\"]",                                // 6
        "[client.iva]",                                         // 7
        "url = \"https://bot.acme.example/turn\"",              // 8
        "[[client.business]]",                                  // 9
        "business_id = 343",                                    // 10
        "webhook = { url = \"https://acme.example/channel\" }", // 11
    ]
}

#[test]
fn each_mistake_is_named_with_line_and_key() {
    assert_eq!(faults(&lines().join("\n")), [""; 0]);
    for (line, text, expected) in [
        (1, "[[etc]]", "t.toml:1: etc: is not a key that is known here; known are ect, client"),
        (1, "[ect]", "t.toml:1: ect: must be a list, not a table"),
        (2, "", "t.toml:1: ect[0].ect_id: is missing"),
        (2, "ect_id = 5", "t.toml:2: ect[0].ect_id: must be a string, not a number"),
        (2, "ect_id = \"iva\"", "t.toml:2: ect[0].ect_id: iva is the id of a receiver of our own"),
        (2, "ect_id = \"a:b\"", "t.toml:2: ect[0].ect_id: may only contain letters"),
        (2, "ect_id = \"\"", "t.toml:2: ect[0].ect_id: must not be empty"),
        (2, "ect_id = ", "t.toml:2: "),
        (3, "", "t.toml:1: ect[0].fqdn: is missing"),
        (3, "fqdn = \"https://x\"", "t.toml:3: ect[0].fqdn: must be a host name"),
        (3, "fqdn = \"x.example\"\nreceive = \"some\"", "t.toml:4: ect[0].receive: must be \"all\" or \"active\""),
        (3, "fqdn = \"x.example\"\nmay_pass_to = 1", "t.toml:4: ect[0].may_pass_to: must be a string"),
        (
            3,
            "fqdn = \"x.example\"\nmay_take = \"yes\"",
            "t.toml:4: ect[0].may_take: must be true or false, not a string",
        ),
        (3, "fqdn = \"x.example\"\nmay_tkae = true", "t.toml:4: ect[0].may_tkae: is not a key that is known here"),
        (
            3,
            "fqdn = \"x.example\"\ncertificates = [\"x\"]",
            "t.toml:4: ect[0].certificates[0]: holds no PEM certificate",
        ),
        (3, "fqdn = \"x.example\"\ncertificates = [\n3\n]", "t.toml:5: ect[0].certificates[0]: must be a string"),
        (
            3,
            "fqdn = \"x.example\"\n[[ect]]\nect_id = \"sprinkle\"\nfqdn = \"y.example\"",
            "t.toml:5: ect[1].ect_id: ECT \"sprinkle\" is declared twice",
        ),
        (5, "", "t.toml:4: client[0].client_id: is missing"),
        (5, "client_id = \"a b\"", "t.toml:5: client[0].client_id: may only contain"),
        (5, "client_id = \"acme\"\napi_token = \"\"", "t.toml:6: client[0].api_token: must not be empty"),
        (5, "client_id = \"acme\"\nname = \"\"", "t.toml:6: client[0].name: must not be empty"),
        (
            5,
            "client_id = \"acme\"\nidle_timeout = \"8 minits\"",
            "t.toml:6: client[0].idle_timeout: must be a duration",
        ),
        (5, "client_id = \"acme\"\nidle_timeout = -1", "t.toml:6: client[0].idle_timeout: must be a duration"),
        (5, "client_id = \"acme\"\nhandoff_timeout = true", "t.toml:6: client[0].handoff_timeout: must be a duration"),
        (
            5,
            "client_id = \"acme\"\nbot_break_message = \"\"",
            "t.toml:6: client[0].bot_break_message: must not be empty",
        ),
        (5, "client_id = \"acme\"\nclient_id = \"acme\"", "t.toml:6: "),
        (
            5,
            "client_id = \"acme\"\ndefault_receiver = \"nobody\"",
            "t.toml:6: client[0].default_receiver: \"nobody\" is not a receiver of client \"acme\"",
        ),
        (
            5,
            "client_id = \"acme\"\ndefault_receiver = \"sac\"",
            "t.toml:6: client[0].default_receiver: \"sac\" is not a receiver of client \"acme\", which does not have sac = true",
        ),
        (
            5,
            "client_id = \"acme\"\nhandoff_receiver = \"x\"",
            "t.toml:6: client[0].handoff_receiver: \"x\" is not a receiver",
        ),
        (
            5,
            "client_id = \"acme\"\nhandoff_receiver = \"iva\"",
            "t.toml:6: client[0].handoff_receiver: must be an agent tool",
        ),
        (5, "client_id = \"acme\"\nfallback = [\"x\"]", "t.toml:6: client[0].fallback[0]: \"x\" is not a receiver"),
        (
            5,
            "client_id = \"acme\"\nfallback = [\"iva\", \"iva\"]",
            "t.toml:6: client[0].fallback[1]: iva stands here twice",
        ),
        (6, "ects = [\"other\"]", "t.toml:6: client[0].ects[0]: there is no ECT \"other\""),
        (6, "ects = [\"iva\"]", "t.toml:6: client[0].ects[0]: iva is not an ECT"),
        (6, "ects = \"sprinkle\"", "t.toml:6: client[0].ects: must be a list, not a string"),
        (7, "[client.ivas]", "t.toml:7: client[0].ivas: is not a key that is known here"),
        (6, "ects = [\"other\"]\nsac = 1", "t.toml:7: client[0].sac: must be true or false"),
        (8, "", "t.toml:7: client[0].iva.url: is missing"),
        (
            8,
            "url = \"http://bot.acme.example/\"",
            "t.toml:8: client[0].iva.url: must be an https URL; http needs egress",
        ),
        (8, "url = \"bot\"", "t.toml:8: client[0].iva.url: must be an absolute URL"),
        (8, "url = \"https://a:b@c/\"", "t.toml:8: client[0].iva.url: must not contain a user name or password"),
        (
            8,
            "url = \"https://x/\"\nsecret = \"whsec_?\"",
            "t.toml:9: client[0].iva.secret: after whsec_ there must be base64",
        ),
        (8, "url = \"https://x/\"\ntimeout = 0", "t.toml:9: client[0].iva.timeout: must be more than nothing"),
        (10, "", "t.toml:9: client[0].business[0].business_id: is missing"),
        (
            10,
            "business_id = \"+343\"",
            "t.toml:10: client[0].business[0].business_id: must be a whole number, not a string",
        ),
        (10, "business_id = -1", "t.toml:10: client[0].business[0].business_id: must be from 0 to 9007199254740991"),
        (10, "business_id = 9007199254740992", "t.toml:10: client[0].business[0].business_id: must be from 0 to"),
        (
            10,
            "business_id = 1\ndefault_receiver = \"x\"",
            "t.toml:11: client[0].business[0].default_receiver: \"x\" is not",
        ),
        (10, "business_id = 1\nteams = [\"\"]", "t.toml:11: client[0].business[0].teams[0]: must not be empty"),
        (11, "webhook = {}", "t.toml:11: client[0].business[0].webhook.url: is missing"),
        (11, "webhook = { url = \"ftp://x/\" }", "t.toml:11: client[0].business[0].webhook.url: must be an https URL"),
        (
            11,
            "[[client.business]]\nbusiness_id = 343",
            "t.toml:12: client[0].business[1].business_id: business 343 of client \"acme\" is declared twice",
        ),
        (
            11,
            "[[client]]\nclient_id = \"acme\"\nsac = true",
            "t.toml:12: client[1].client_id: client \"acme\" is declared twice",
        ),
        (
            11,
            "[[client]]\nclient_id = \"empty\"",
            "t.toml:11: client[1].default_receiver: client \"empty\" has no default receiver",
        ),
    ] {
        let mut lines = lines();
        lines[line - 1] = text;
        let faults = faults(&lines.join("\n"));
        assert!(faults.len() == 1 && faults[0].starts_with(expected), "{line}: {text}\n{expected}\n{faults:#?}");
    }
}

#[test]
fn every_fault_is_told_at_once() {
    let text = "[[ect]]\nect_id = \"a\"\nfqdn = \"-\"\n[[client]]\nclient_id = \"x\"\nsac = 1\n\
                [[client]]\nclient_id = \"y\"\niva = { url = \"http://y/\" }\n[[client]]\nclient_id = \"z\"\nsac = true\nfoo = 1\n";
    let faults = faults(text);
    let keys: Vec<_> = faults.iter().filter_map(|f| f.split(": ").nth(1)).collect();
    assert_eq!(keys, ["ect[0].fqdn", "client[0].sac", "client[1].iva.url", "client[2].foo"], "{faults:#?}");
}

#[test]
fn json_meets_the_same_checks() {
    let error = serde_json::from_value::<Declaration>(json!({ "client": [{ "client_id": "" }], "x": 1 })).unwrap_err();
    let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], "client[0].client_id: must not be empty");
    assert!(lines[1].starts_with("x: is not a key"));
}
