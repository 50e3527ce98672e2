//! `tract demo` as a newcomer runs it: the whole story on standard output, commands that work, a clean end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed, which is what it is for")]

use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// For one line to appear: far more than it takes, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

struct Demo {
    child: Child,
    lines: Receiver<String>,
    printed: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tract"))
            .args(["demo", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, lines, printed: Vec::new() }
    }

    /// Reads on until a line holds this text; returns the line.
    fn read_until(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("no line with {text:?}; the demo printed:\n{}", self.printed.join("\n"))
            };
            self.printed.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The value of a shell variable that the last page sets.
    fn variable(&self, name: &str) -> String {
        let set = self.printed.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        set.unwrap_or_else(|| panic!("{name} is not set")).trim_matches('\'').to_owned()
    }

    fn interrupt(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            // The pipe closes with the process.
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("the demo did not end within 15 s of Ctrl-C"),
            }
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_tells_the_whole_story_stays_up_and_ends_on_ctrl_c() {
    let mut demo = Demo::start();
    demo.read_until("ready: ");
    let story = demo.printed.join("\n");

    // What causes what, in the order in which it must be told.
    let told = [
        "== 1. ",
        "user_events.create_user",
        "== 2. ",
        "customer -> iva       \"Hello!\"",
        "iva -> customer       \"Hello! I am the bot of Acme Shop.\"",
        "iva -> customer       \"Ask me for",
        "== 3. ",
        "\"Could I talk to a person, please?\"",
        "hand-off to sprinkle",
        "chat_pinned",
        "== 4. ",
        "\"It is order 4711.\"",
        "agent -> customer     \"Order 4711 left our depot",
        "webhook_conversation_complete",
        "== 5. ",
        "\"One more thing: when do you open?\"",
        "\"We are open every day from 9 to 18.\"",
        "== Go on by hand",
    ];
    let mut rest = story.as_str();
    for text in told {
        let Some(at) = rest.find(text) else { panic!("{text:?} is missing or out of order in:\n{story}") };
        rest = &rest[at + text.len()..];
    }
    for text in [
        "control pass (handoff), epoch 1 -> 2",
        "conversation 1: bot -> incomplete (handoff)",
        "conversation 1: incomplete -> pinned (allocated)",
        "conversation 1: pinned -> waiting (waiting)",
        "conversation 1: waiting -> pinned (ceu_message)",
        "conversation 1: pinned -> complete (complete)",
        "conversation 2: complete -> bot (ceu_message)",
        "conversation_state.bot ",
        "conversation_state.incomplete ",
        "signature ok",
    ] {
        assert!(story.contains(text), "{text:?} is missing in:\n{story}");
    }
    assert!(!story.contains("FAULT"), "{story}");
    assert!(!story.contains('\x1b'), "colours in a pipe");

    // The last page's values work, and the samples go on.
    let (router, token) = (demo.variable("TRACT"), demo.variable("API_TOKEN"));
    let said = json!({"user": {"auth_id": "priya-27"}, "message_body": "A person, please", "message_type": 0,
        "business_id": 343});
    let answer = reqwest::Client::new()
        .post(format!("{router}/v1.0/log_message_from_user/"))
        .bearer_auth(token)
        .header("client-id", "acme")
        .json(&said)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    demo.read_until("conversation 2: incomplete -> pinned");

    let status = demo.interrupt();
    assert!(status.success(), "{status}");
}
