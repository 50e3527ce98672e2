//! Lines of the log, as JSON.
//!
//! What `tracing-subscriber` has for this builds a map of a span's fields, and reads and writes it anew whenever one is added and
//! with every line; each request would pay for it. Here a field is written behind those before it, and a span as it stands.

use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event as one object: when, how grave, what, where, and in which span.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Line;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, SpanFields> for Line {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, SpanFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut now = String::with_capacity(32);
        SystemTime.format_time(&mut Writer::new(&mut now))?;
        let mut line = Object::with_capacity(512);
        line.add("timestamp", &now);
        line.add("level", event.metadata().level().as_str());
        event.record(&mut line);
        line.add("target", event.metadata().target());
        if let Some(span) = event.parent().and_then(|id| context.span(id)).or_else(|| context.lookup_current()) {
            let mut object = Object::with_capacity(256);
            object.add("name", span.name());
            if let Some(fields) = span.extensions().get::<FormattedFields<SpanFields>>() {
                object.add_all_of(fields);
            }
            line.add_object("span", object);
        }
        writeln!(writer, "{}", line.close()?)
    }
}

/// Writes the fields of a span as one JSON object. A field that is recorded again stands there again; whoever reads the object
/// takes the last one.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct SpanFields;

impl<'w> FormatFields<'w> for SpanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut object = Object::with_capacity(192);
        fields.record(&mut object);
        writer.write_str(&object.close()?)
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &tracing::span::Record<'_>) -> fmt::Result {
        let mut object = Object::reopened(std::mem::take(&mut current.fields));
        fields.record(&mut object);
        current.fields = object.close()?;
        Ok(())
    }
}

/// An object that is still open; empty before the first field.
struct Object {
    text: Vec<u8>,
    fault: bool,
}

impl Object {
    fn with_capacity(bytes: usize) -> Self {
        Self { text: Vec::with_capacity(bytes), fault: false }
    }

    fn reopened(closed: String) -> Self {
        let mut text = closed.into_bytes();
        if text.last() == Some(&b'}') {
            text.pop();
        }
        Self { text, fault: false }
    }

    fn begin(&mut self) {
        self.text.push(if self.text.is_empty() { b'{' } else { b',' });
    }

    fn add(&mut self, name: &str, value: impl serde::Serialize) {
        self.begin();
        self.fault |= serde_json::to_writer(&mut self.text, name).is_err();
        self.text.push(b':');
        self.fault |= serde_json::to_writer(&mut self.text, &value).is_err();
    }

    fn add_object(&mut self, name: &str, object: Self) {
        self.begin();
        self.fault |= object.fault || serde_json::to_writer(&mut self.text, name).is_err();
        self.text.push(b':');
        self.text.extend_from_slice(&object.text);
        self.text.push(b'}');
    }

    /// Adds the fields of an object that is closed, if it has any.
    fn add_all_of(&mut self, closed: &str) {
        if let Some(fields) = closed.strip_prefix('{').and_then(|open| open.strip_suffix('}')).filter(|f| !f.is_empty())
        {
            self.begin();
            self.text.extend_from_slice(fields.as_bytes());
        }
    }

    fn close(mut self) -> Result<String, fmt::Error> {
        if self.text.is_empty() {
            self.text.push(b'{');
        }
        self.text.push(b'}');
        if self.fault { Err(fmt::Error) } else { String::from_utf8(self.text).map_err(|_| fmt::Error) }
    }
}

impl Visit for Object {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), format_args!("{value:?}"));
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
                tracing::warn!(error = %"\"no\"\n", count = 2, "three");
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
        let three = lines[2].as_object().unwrap();
        let names: Vec<&str> = three.keys().map(String::as_str).collect();
        assert_eq!(names, ["count", "error", "level", "message", "target", "timestamp"]);
        assert_eq!((&three["level"], &three["target"]), (&"WARN".into(), &"tract::telemetry::lines::tests".into()));
        assert_eq!((&three["error"], &three["count"]), (&"\"no\"\n".into(), &2.into()));
        let at = three["timestamp"].as_str().unwrap();
        assert!(at.parse::<jiff::Timestamp>().is_ok(), "{at}");
    }
}
