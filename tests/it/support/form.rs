//! `multipart/form-data`, written by hand, so that a test can write it wrong.

use reqwest::RequestBuilder;
use std::sync::atomic::{AtomicU64, Ordering};

/// A form with its parts, in order.
#[derive(Clone, Default)]
pub(crate) struct Form {
    parts: Vec<(String, Option<String>, Vec<u8>)>,
}

impl Form {
    /// What a file of a customer's comes in, with everything that must be there.
    pub(crate) fn of_file(auth_id: &str, business: u64, message_type: u64, name: &str, file: &[u8]) -> Self {
        let form = Self::default().text("auth_id", auth_id).text("business_id", &business.to_string());
        form.text("message_type", &message_type.to_string()).file("file", name, file)
    }
    pub(crate) fn text(mut self, name: &str, text: &str) -> Self {
        self.parts.push((name.to_owned(), None, text.as_bytes().to_vec()));
        self
    }
    pub(crate) fn file(mut self, name: &str, file_name: &str, bytes: &[u8]) -> Self {
        self.parts.push((name.to_owned(), Some(file_name.to_owned()), bytes.to_vec()));
        self
    }
    /// Without this part.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.parts.retain(|(part, ..)| part != name);
        self
    }
    /// With another text in the place of this part.
    pub(crate) fn with(self, name: &str, text: &str) -> Self {
        self.without(name).text(name, text)
    }
    /// Its parts the other way round.
    pub(crate) fn backwards(mut self) -> Self {
        self.parts.reverse();
        self
    }
    /// As it is sent with this boundary.
    pub(crate) fn body(&self, boundary: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, file_name, bytes) in &self.parts {
            let file_name = file_name.as_ref().map(|name| format!("; filename=\"{name}\"\r\nContent-Type: text/html"));
            let file_name = file_name.unwrap_or_default();
            let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n");
            body.extend(head.into_bytes());
            body.extend(bytes);
            body.extend(b"\r\n");
        }
        body.extend(format!("--{boundary}--\r\n").into_bytes());
        body
    }
    /// In a request, with a boundary of its own.
    pub(crate) fn in_request(&self, request: RequestBuilder) -> RequestBuilder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let boundary = format!("boundary-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let content_type = format!("multipart/form-data; boundary={boundary}");
        request.header("content-type", content_type).body(self.body(&boundary))
    }
}
