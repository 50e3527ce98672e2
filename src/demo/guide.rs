//! The last page: what is running, and commands to go on by hand.

use super::{api::Channel, story::CUSTOMER};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What the commands need to name.
pub(super) struct Guide<'a> {
    pub(super) router: &'a str,
    pub(super) admin_token: &'a str,
    pub(super) channel: &'a Channel,
    pub(super) ect: &'a str,
    pub(super) ect_token: &'a str,
    pub(super) iva_token: &'a str,
    pub(super) user_id: &'a str,
}

impl Guide<'_> {
    /// The page. All of it can be pasted into a POSIX shell: what is not a command is a comment.
    pub(super) fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a `String` does not fail.
        let _ = self.write(&mut page);
        page
    }

    fn write(&self, page: &mut String) -> std::fmt::Result {
        let Self { router, admin_token, channel, ect, ect_token, iva_token, user_id } = self;
        writeln!(page, "# router    {router}")?;
        writeln!(page, "# API       {router}/docs   {router}/openapi.json")?;
        writeln!(page, "# metrics   {router}/metrics   health {router}/healthz {router}/readyz")?;
        writeln!(page, "#\n# Bot, agent tool and channel go on: paste this into another terminal and watch here.\n")?;
        writeln!(page, "TRACT={}", quoted(router))?;
        writeln!(page, "API_TOKEN={}", quoted(&channel.api_token))?;
        writeln!(page, "ECT_TOKEN={}", quoted(ect_token))?;
        writeln!(page, "IVA_TOKEN={}", quoted(iva_token))?;
        writeln!(page, "ADMIN_TOKEN={}\n", quoted(admin_token))?;

        let says = |text: &str| {
            json!({"user": {"auth_id": CUSTOMER}, "message_body": text, "message_type": 0,
                "business_id": channel.business_id})
        };
        let log = "/v1.0/log_message_from_user/";
        writeln!(page, "# The customer: asks for a person (\"break\" breaks the bot, \"bye\" ends the conversation).")?;
        self.as_channel(page, log, &says("A person, please"))?;
        writeln!(page, "# The customer: says something else.")?;
        self.as_channel(page, log, &says("Hello again"))?;

        writeln!(page, "# The agent tool: writes to the customer. 409 not_active unless it is in control.")?;
        let send = json!({"user_id": user_id, "sender": "aeu", "message_body": "I am still here."});
        self.post(page, "ECT_TOKEN", "/tract/message/send/", &send)?;
        writeln!(page, "# The agent tool: ends the conversation.")?;
        let event = json!({"user_id": user_id, "category": "conversation_state", "subcategory": "complete"});
        self.post(page, "ECT_TOKEN", "/tract/events/send", &event)?;
        writeln!(page, "# The agent tool: passes the thread back to the bot.")?;
        let pass = json!({"user_id": user_id, "type": "pass", "requester": ect, "receiver": "iva"});
        self.post(page, "ECT_TOKEN", "/tract/thread_control/request", &pass)?;
        writeln!(page, "# The bot, a primary receiver: takes the thread.")?;
        let take = json!({"user_id": user_id, "type": "take", "requester": "iva", "receiver": "iva"});
        self.post(page, "IVA_TOKEN", "/tract/thread_control/request", &take)?;

        writeln!(page, "# The thread: state, who is in control, and why. Its entries. The agent tool's hooks.")?;
        self.get(page, "ECT_TOKEN", &format!("/tract/thread/?user_id={user_id}"))?;
        self.get(page, "ECT_TOKEN", &format!("/tract/thread/feed/?user_id={user_id}&after=0&limit=100"))?;
        self.get(page, "ECT_TOKEN", "/tract/hooks/list/")?;
        writeln!(page, "# The operator: all threads of the client.")?;
        self.get(page, "ADMIN_TOKEN", &format!("/admin/v1/threads?client_id={}", channel.client_id))
    }

    fn as_channel(&self, page: &mut String, path: &str, body: &Value) -> std::fmt::Result {
        let client = quoted(&format!("client-id: {}", self.channel.client_id));
        let authorization = r#""Authorization: Bearer $API_TOKEN""#;
        let body = quoted(&body.to_string());
        writeln!(
            page,
            r#"curl -sS "$TRACT{path}" -H {authorization} -H {client} -H 'Content-Type: application/json' -d {body}; echo"#
        )
    }

    fn post(&self, page: &mut String, token: &str, path: &str, body: &Value) -> std::fmt::Result {
        let body = quoted(&body.to_string());
        writeln!(
            page,
            r#"curl -sS "$TRACT{path}" -H "Authorization: Bearer ${token}" -H 'Content-Type: application/json' -d {body}; echo"#
        )
    }

    fn get(&self, page: &mut String, token: &str, path: &str) -> std::fmt::Result {
        writeln!(page, r#"curl -sS "$TRACT{path}" -H "Authorization: Bearer ${token}"; echo"#)
    }
}

/// A text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Lets a real shell read the page, with a `curl` that prints its arguments instead.
    #[test]
    fn the_page_can_be_pasted_into_a_shell() {
        let channel = Channel { client_id: "acme".into(), api_token: "it's $HOME".into(), business_id: 343 };
        let page = Guide {
            router: "http://127.0.0.1:8080",
            admin_token: "admin",
            channel: &channel,
            ect: "sprinkle",
            ect_token: "ect.jwt",
            iva_token: "iva.jwt",
            user_id: "u~1",
        }
        .page();
        let script = format!("curl() {{ printf '%s\\n' CALL \"$@\"; }}\n{page}");
        let shell = Command::new("sh").args(["-euc", &script]).output().unwrap();
        assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));

        let printed = String::from_utf8(shell.stdout).unwrap();
        let calls: Vec<Vec<&str>> = printed.split("CALL\n").skip(1).map(|call| call.lines().collect()).collect();
        assert_eq!(calls.len(), 10);
        for call in &calls {
            assert!(call[1].starts_with("http://127.0.0.1:8080/"), "{call:?}");
            let body = call.iter().position(|&word| word == "-d").map(|at| call[at + 1]);
            if let Some(body) = body {
                assert!(serde_json::from_str::<Value>(body).unwrap().is_object());
                assert!(call.contains(&"Content-Type: application/json"));
            }
            assert!(call.iter().any(|word| word.starts_with("Authorization: Bearer ")), "{call:?}");
        }
        assert!(calls[0].contains(&"Authorization: Bearer it's $HOME"), "{:?}", calls[0]);
        assert!(calls[0].contains(&"client-id: acme"));
        assert!(calls[2].contains(&"Authorization: Bearer ect.jwt"));
    }
}
