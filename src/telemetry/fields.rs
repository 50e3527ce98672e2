//! The fields of spans, as JSON.
//!
//! What `tracing-subscriber` has for this builds a map, and reads and writes it anew whenever a field is added; every request
//! would pay for it, although hardly any is logged. Here a field is written behind those before it.

use std::fmt;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::{FormatFields, FormattedFields, format::Writer};

/// Writes the fields of a span as one JSON object. A field that is recorded again stands there again; whoever reads the object
/// takes the last one.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct SpanFields;

impl<'w> FormatFields<'w> for SpanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut object = Object { text: String::with_capacity(192), fault: false };
        fields.record(&mut object);
        writer.write_str(&object.close()?)
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &tracing::span::Record<'_>) -> fmt::Result {
        let mut text = std::mem::take(&mut current.fields);
        if text.ends_with('}') {
            text.pop();
        }
        let mut object = Object { text, fault: false };
        fields.record(&mut object);
        current.fields = object.close()?;
        Ok(())
    }
}

/// An object that is still open; empty before the first field.
struct Object {
    text: String,
    fault: bool,
}

impl Object {
    fn add(&mut self, field: &Field, value: impl serde::Serialize) {
        self.text.push(if self.text.is_empty() { '{' } else { ',' });
        let both = serde_json::to_string(field.name()).and_then(|name| Ok((name, serde_json::to_string(&value)?)));
        match both {
            Ok((name, value)) => self.text.extend([name.as_str(), ":", value.as_str()]),
            Err(_) => self.fault = true,
        }
    }

    fn close(mut self) -> Result<String, fmt::Error> {
        match (self.fault, self.text.is_empty()) {
            (true, _) => return Err(fmt::Error),
            (false, true) => self.text.push_str("{}"),
            (false, false) => self.text.push('}'),
        }
        Ok(self.text)
    }
}

impl Visit for Object {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Seek},
        sync::Arc,
    };
    use tracing::field::Empty;

    #[test]
    fn a_line_has_all_fields_of_its_span_as_they_were_recorded_last() {
        let lines = Arc::new(tempfile::tempfile().unwrap());
        tracing::subscriber::with_default(
            crate::telemetry::in_json(Arc::clone(&lines), tracing_subscriber::EnvFilter::new("info")),
            || {
                let span = tracing::info_span!("request", id = "a \"b\"\n", count = 3_u64, late = Empty, again = Empty);
                span.record("again", -1_i64);
                tracing::record_all!(span, late = true, again = 2.5);
                let empty = tracing::info_span!(parent: &span, "empty", never = Empty);
                span.in_scope(|| tracing::info!("one"));
                empty.in_scope(|| tracing::info!("two"));
            },
        );
        let (mut written, mut file) = (String::new(), &*lines);
        file.rewind().unwrap();
        file.read_to_string(&mut written).unwrap();
        let lines: Vec<serde_json::Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected =
            serde_json::json!({"name": "request", "id": "a \"b\"\n", "count": 3, "late": true, "again": 2.5});
        assert_eq!((&lines[0]["message"], &lines[0]["span"]), (&"one".into(), &expected));
        assert_eq!((&lines[1]["message"], &lines[1]["span"]), (&"two".into(), &serde_json::json!({"name": "empty"})));
    }
}
