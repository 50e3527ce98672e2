//! Users, kept answers, documents; and the end.

use super::*;
use tract_actors::ports::{Document, DocumentWrite, Kept, KeptAnswer, StoreError};
use tract_domain::Reply;

pub(crate) async fn a_user_is_written_and_read(place: &impl Place) {
    let store = place.open().await;
    let acme = client("acme");
    assert_eq!(store.user(&acme, "walter").await, Ok(None));
    let created = UserWrite { profile: Some(json(r#"{"name":"W"}"#)), ..user_write("acme", "walter", 0) };
    assert_eq!(store.write_user(created.clone()).await, Ok(Written::Applied));
    assert_eq!(store.write_user(created).await, Ok(Written::Applied), "the same again");
    assert_eq!(store.write_user(user_write("acme", "walter", 0)).await, Ok(Written::Conflict));
    assert_eq!(store.write_user(user_write("acme", "nobody", 3)).await, Ok(Written::Conflict));
    let user = store.user(&acme, "walter").await.unwrap().unwrap();
    assert_eq!((user.version, user.profile), (1, json(r#"{"name":"W"}"#)));
    assert_eq!((user.user_details, user.ect_user_ids.len()), (None, 0));
    assert_eq!(store.write_user(user_write("acme", "walter", 1)).await, Ok(Written::Applied));
    let user = store.user(&acme, "walter").await.unwrap().unwrap();
    assert_eq!((user.version, user.profile), (2, json(r#"{"name":"W"}"#)), "no profile leaves it");
    assert_eq!(store.user(&client("other"), "walter").await, Ok(None));
    let odd = "ключ 'x'\u{0}\u{1f600}%_";
    let write = UserWrite { profile: Some(json("{}")), ..user_write("acme", odd, 0) };
    assert_eq!(store.write_user(write).await, Ok(Written::Applied));
    assert!(store.user(&acme, odd).await.unwrap().is_some());
    assert_eq!(store.user(&acme, "ключ 'x'").await, Ok(None));
}

pub(crate) async fn what_others_tell_of_a_user_is_kept(place: &impl Place) {
    let store = place.open().await;
    let acme = client("acme");
    store.keep_ect_user_id(&acme, "walter", &receiver("sprinkle"), "early").await.unwrap();
    assert_eq!(store.user(&acme, "walter").await, Ok(None), "nobody is made up");
    let user_id = open_thread(&*store, 1, "walter").await;
    let second = open_thread(&*store, 2, "walter").await;
    for (ect, id) in [("sprinkle", "4711"), ("a.b-c~d", "x"), ("sprinkle", "4712")] {
        store.keep_ect_user_id(&acme, "walter", &receiver(ect), id).await.unwrap();
    }
    for (user_id, details) in [(&user_id, r#"{"a":1}"#), (&second, r#"{"b":2}"#)] {
        let commit = Commit { user_details: Some(json(details)), ..next_step(&*store, user_id, 1).await };
        applied(&*store, commit).await;
    }
    let plain = next_step(&*store, &user_id, 1).await;
    applied(&*store, plain).await;
    let user = store.user(&acme, "walter").await.unwrap().unwrap();
    assert_eq!(user.user_details, Some(json(r#"{"b":2}"#)), "one record for all threads");
    let names: Vec<_> = user.ect_user_ids.iter().map(|(ect, id)| (ect.as_str(), id.as_str())).collect();
    assert_eq!(names, [("a.b-c~d", "x"), ("sprinkle", "4712")]);
    assert_eq!(user.version, 2, "only writes of the user itself count");
}

pub(crate) async fn an_answer_is_kept_with_its_commit(place: &impl Place) {
    let store = place.open().await;
    let user_id = open_thread(&*store, 1, "walter").await;
    let home = KeyHome::Thread(user_id.clone());
    assert_eq!(kept(&*store, &home, 1, NOW).await, None);
    let reply = Reply::Message { entry: 0, sequence: 1, conversation: 1, control_epoch: 1 };
    let expires = NOW.plus(1000);
    let commit = next_step(&*store, &user_id, 2).await;
    let commit = Commit { idempotency: Some((key(&home, 1, 5, expires), reply.clone())), ..commit };
    let message_ids = applied(&*store, commit.clone()).await;
    let first =
        Kept { request: [5; 32], answer: KeptAnswer::Thread { reply, message_ids: message_ids.clone(), at: NOW } };
    assert_eq!(kept(&*store, &home, 1, NOW).await, Some(first.clone()));
    assert_eq!(applied(&*store, commit).await, message_ids, "the same commit is no second use");
    let second =
        Commit { idempotency: Some((key(&home, 1, 6, expires), Reply::Done)), ..next_step(&*store, &user_id, 1).await };
    assert_eq!(store.commit(second).await, Ok(Committed::Conflict));
    let users = KeyHome::User(user_id.clone());
    let other =
        UserWrite { idempotency: Some((key(&users, 1, 6, expires), json("{}"))), ..user_write("acme", "walter", 1) };
    assert_eq!(store.write_user(other).await, Ok(Written::Conflict));
    assert_eq!(store.feed(&user_id, 0, 10).await.unwrap().len(), 2);
    let body = json(r#"{"user_id":"u"}"#);
    let write =
        UserWrite { idempotency: Some((key(&users, 2, 7, expires), body.clone())), ..user_write("acme", "walter", 1) };
    assert_eq!(store.write_user(write.clone()).await, Ok(Written::Applied));
    assert_eq!(store.write_user(write).await, Ok(Written::Applied));
    let documents = DocumentWrite {
        idempotency: Some((key(&KeyHome::Configuration, 3, 8, expires), body.clone())),
        ..DocumentWrite::default()
    };
    assert_eq!(store.write_documents(documents).await, Ok(Written::Applied));
    store.close().await;
    let store = place.open().await;
    assert_eq!(kept(&*store, &home, 1, NOW).await, Some(first));
    for (home, n, request) in [(users, 2, 7), (KeyHome::Configuration, 3, 8)] {
        let expected = Kept { request: [request; 32], answer: KeptAnswer::Body(body.clone()) };
        assert_eq!(kept(&*store, &home, n, NOW).await, Some(expected));
    }
}

/// The scope of such a key is the client, not the user.
pub(crate) async fn a_key_of_a_users_request_is_known_from_anothers(place: &impl Place) {
    let store = place.open().await;
    let acme = client("acme");
    let home = |n: usize| KeyHome::User(store.user_id(&acme, 1, &format!("user {n}")));
    let body = json(r#"{"user_id":"u"}"#);
    let idempotency = Some((key(&home(0), 1, 5, NOW.plus(1000)), body.clone()));
    let write = UserWrite { idempotency, ..user_write("acme", "user 0", 0) };
    assert_eq!(store.write_user(write).await, Ok(Written::Applied));
    let expected = Kept { request: [5; 32], answer: KeptAnswer::Body(body) };
    for n in 0..20 {
        assert_eq!(kept(&*store, &home(n), 1, NOW).await, Some(expected.clone()), "from user {n}");
    }
}

pub(crate) async fn an_expired_answer_makes_room(place: &impl Place) {
    let store = place.open().await;
    let user_id = open_thread(&*store, 1, "walter").await;
    let home = KeyHome::Thread(user_id.clone());
    for n in 0..3 {
        let expires = NOW.plus(10 * (u64::from(n) + 1));
        let commit = next_step(&*store, &user_id, 1).await;
        applied(&*store, Commit { idempotency: Some((key(&home, n, 1, expires), Reply::Done)), ..commit }).await;
    }
    assert!(kept(&*store, &home, 0, NOW.plus(9)).await.is_some());
    assert_eq!(kept(&*store, &home, 0, NOW.plus(10)).await, None);
    let idempotency = Some((key(&home, 0, 2, NOW.plus(99)), Reply::Done));
    let commit = Commit { idempotency, now: NOW.plus(10), ..next_step(&*store, &user_id, 1).await };
    applied(&*store, commit).await;
    assert_eq!(kept(&*store, &home, 0, NOW.plus(10)).await.unwrap().request, [2; 32]);
    assert_eq!(store.forget_expired(NOW.plus(20)).await, Ok(1));
    assert_eq!(store.forget_expired(NOW.plus(20)).await, Ok(0));
    assert_eq!(store.forget_expired(NOW.plus(1000)).await, Ok(2));
}

pub(crate) async fn a_signed_request_is_new_once(place: &impl Place) {
    let store = place.open().await;
    let until = NOW.plus(150_000);
    assert_eq!(store.remember_request([1; 32], until, NOW).await, Ok(true));
    assert_eq!(store.remember_request([1; 32], until, NOW).await, Ok(false));
    assert_eq!(store.remember_request([2; 32], NOW.plus(10), NOW).await, Ok(true), "another one");
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.remember_request([1; 32], until, until).await, Ok(false), "through its last moment");
    assert_eq!(store.forget_expired(NOW.plus(10)).await, Ok(0));
    assert_eq!(store.forget_expired(NOW.plus(11)).await, Ok(1));
    assert_eq!(store.remember_request([1; 32], until.plus(99), until.plus(1)).await, Ok(true), "forgotten in time");
    assert_eq!(store.remember_request([1; 32], until.plus(99), until.plus(2)).await, Ok(false));
    assert_eq!(store.forget_expired(until.plus(100)).await, Ok(1));
}

pub(crate) async fn a_signed_request_is_new_once_however_many_ask(place: &impl Place) {
    let store = place.open().await;
    let ask = || {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.remember_request([7; 32], NOW.plus(1), NOW).await.unwrap() })
    };
    let asked: Vec<_> = (0..64).map(|_| ask()).collect();
    let mut new = 0;
    for answer in asked {
        new += u32::from(answer.await.unwrap());
    }
    assert_eq!(new, 1);
}

pub(crate) async fn documents_have_one_revision(place: &impl Place) {
    let store = place.open().await;
    let document = |kind: &str, id: &str, body: &str| Document { kind: kind.into(), id: id.into(), body: body.into() };
    let empty = store.documents().await.unwrap();
    assert_eq!((empty.revision, empty.documents.len()), (0, 0));
    let put = vec![document("hook", "b", "1"), document("ect", "z", "2"), document("hook", "a", "3")];
    let write = DocumentWrite { put, ..DocumentWrite::default() };
    assert_eq!(store.write_documents(write.clone()).await, Ok(Written::Applied));
    let another = DocumentWrite { write_id: Uuid::new_v4(), ..write };
    assert_eq!(store.write_documents(another).await, Ok(Written::Conflict));
    let write = DocumentWrite {
        expected_revision: 1,
        put: vec![document("hook", "a", "4"), document("client", "c", "5")],
        delete: vec![("hook".into(), "b".into()), ("hook".into(), "none".into())],
        ..DocumentWrite::default()
    };
    assert_eq!(store.write_documents(write).await, Ok(Written::Applied));
    store.close().await;
    let store = place.open().await;
    let all = store.documents().await.unwrap();
    assert_eq!(all.revision, 2);
    assert_eq!(all.documents, [document("client", "c", "5"), document("ect", "z", "2"), document("hook", "a", "4")]);
}

pub(crate) async fn a_closed_store_says_so(place: &impl Place) {
    let store = place.open().await;
    let user_id = open_thread(&*store, 1, "walter").await;
    let commit = next_step(&*store, &user_id, 1).await;
    assert_eq!(store.ping().await, Ok(()));
    // What is under way when it closes is either done or refused, and the answer says which.
    let asked = tokio::spawn({
        let (store, commit) = (Arc::clone(&store), commit.clone());
        async move { store.commit(commit).await }
    });
    store.close().await;
    store.close().await;
    let answered = asked.await.unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.thread(&user_id).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.commit(commit).await, Err(StoreError::Unavailable(_))));
    drop(store);
    let store = place.open().await;
    let committed = store.feed(&user_id, 0, 10).await.unwrap().len();
    assert_eq!(committed, usize::from(answered.is_ok()), "{answered:?}");
}
