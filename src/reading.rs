//! Reads what people write (TOML files, environment, JSON) key by key, and collects *every* fault with its key, so that
//! a file is put right in one go. TOML keeps the lines of its keys; serde would stop at the first fault.

use serde_json::{Map, Value};
use std::{cell::RefCell, collections::HashMap, fmt, ops::RangeInclusive};
use toml::{
    Spanned,
    de::{DeArray, DeInteger, DeTable, DeValue},
};

/// The longest time that any setting may name: a year, in milliseconds. Beyond it lies a slip of the unit.
pub const MAX_DURATION_MS: u64 = 365 * 24 * 3_600_000;

/// Something wrong with a key. Never holds a value that could be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which key, such as `client[0].iva.url`; empty for the whole.
    pub key: String,
    /// What is wrong, for a person.
    pub what: String,
}

impl Fault {
    /// A fault of this key.
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.key, self.what) }
    }
}

/// A fault, and where to look for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// A file or an environment variable.
    pub place: String,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.place, self.fault),
            None => write!(f, "{}: {}", self.place, self.fault),
        }
    }
}

/// A file's keys and values, with where each stands.
#[derive(Debug, Default)]
pub struct Source {
    name: String,
    /// The whole as JSON.
    pub value: Value,
    lines: HashMap<String, usize>,
    variables: HashMap<String, String>,
}

impl Source {
    /// A source without a file.
    pub fn empty(name: &str) -> Self {
        Self { name: name.to_owned(), value: Value::Object(Map::new()), ..Self::default() }
    }

    /// Reads TOML. `name` is how faults call the file.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<Located>> {
        let mut source = Self::empty(name);
        let starts = line_starts(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let located = |line, fault| Located { place: name.to_owned(), line: Some(line), fault };
        if !errors.is_empty() {
            let line = |e: &toml::de::Error| e.span().map_or(1, |s| line_of(&starts, s.start));
            return Err(errors.iter().map(|e| located(line(e), Fault::new("", one_line(e.message())))).collect());
        }
        let mut tree = Tree { starts, lines: &mut source.lines, faults: Vec::new() };
        let value = tree.table("", table.get_ref());
        let faults: Vec<_> = tree.faults.into_iter().map(|(line, fault)| located(line, fault)).collect();
        source.value = Value::Object(value);
        if faults.is_empty() { Ok(source) } else { Err(faults) }
    }

    /// Puts a value from an environment variable over whatever stands at this key (`table.key` or `key`).
    pub fn set(&mut self, variable: &str, key: &str, value: Value) {
        self.variables.insert(key.to_owned(), variable.to_owned());
        let (table, name) = match key.split_once('.') {
            Some((table, name)) => (Some(table), name),
            None => (None, key),
        };
        let Value::Object(root) = &mut self.value else { return };
        let target = match table {
            Some(table) => root.entry(table).or_insert_with(|| Value::Object(Map::new())),
            None => &mut self.value,
        };
        // A scalar where the table should be is a fault of the file, which the reader names.
        if let Value::Object(target) = target {
            target.insert(name.to_owned(), value);
        }
    }

    /// Where a fault is: at its key, or at the nearest table or list around a key that is missing.
    pub fn locate(&self, fault: Fault) -> Located {
        let mut at = fault.key.as_str();
        loop {
            if let Some(variable) = self.variables.get(at) {
                return Located { place: variable.clone(), line: None, fault };
            }
            if let Some(line) = self.lines.get(at) {
                return Located { place: self.name.clone(), line: Some(*line), fault };
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = at.get(..end).unwrap_or_default(),
                None => return Located { place: self.name.clone(), line: None, fault },
            }
        }
    }

    /// The line of a key, if the file has it.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    /// All faults, in the file's order.
    pub fn locate_all(&self, faults: Vec<Fault>) -> Vec<Located> {
        let mut located: Vec<_> = faults.into_iter().map(|f| self.locate(f)).collect();
        located.sort_by_key(|l| l.line);
        located
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

fn line_of(starts: &[usize], offset: usize) -> usize {
    starts.partition_point(|start| *start <= offset).max(1)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Tree<'a> {
    starts: Vec<usize>,
    lines: &'a mut HashMap<String, usize>,
    faults: Vec<(usize, Fault)>,
}

impl Tree<'_> {
    fn table(&mut self, at: &str, table: &DeTable<'_>) -> Map<String, Value> {
        let mut map = Map::new();
        for (key, value) in table {
            let path = join(at, key.get_ref());
            let line = line_of(&self.starts, key.span().start);
            self.lines.insert(path.clone(), line);
            let value = self.value(&path, line, value.get_ref());
            map.insert(key.get_ref().clone().into_owned(), value);
        }
        map
    }

    fn list(&mut self, at: &str, list: &DeArray<'_>) -> Vec<Value> {
        let item = |(n, value): (usize, &Spanned<DeValue<'_>>)| {
            let path = format!("{at}[{n}]");
            let line = line_of(&self.starts, value.span().start);
            self.lines.insert(path.clone(), line);
            self.value(&path, line, value.get_ref())
        };
        list.iter().enumerate().map(item).collect()
    }

    fn value(&mut self, at: &str, line: usize, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::String(text.clone().into_owned()),
            DeValue::Integer(number) => match integer(number) {
                Some(number) => Value::from(number),
                None => {
                    self.faults.push((line, Fault::new(at, "this number is too large")));
                    Value::Null
                }
            },
            DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
            DeValue::Boolean(yes) => Value::Bool(*yes),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Array(list) => Value::Array(self.list(at, list)),
            DeValue::Table(table) => Value::Object(self.table(at, table)),
        }
    }
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn join(at: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'));
    let key = if bare { key.to_owned() } else { format!("\"{}\"", key.escape_debug()) };
    if at.is_empty() { key } else { format!("{at}.{key}") }
}

/// Collects faults while values are read.
#[derive(Debug, Default)]
pub struct Faults {
    found: RefCell<Vec<Fault>>,
    /// Keys that nobody asked for, where those are no faults.
    ignored: Option<RefCell<Vec<String>>>,
}

impl Faults {
    /// Keys that nobody asks for are no faults, but ignored.
    pub fn ignoring_unknown_keys() -> Self {
        Self { ignored: Some(RefCell::default()), ..Self::default() }
    }
    /// Notes one.
    pub fn add(&self, key: impl Into<String>, what: impl Into<String>) {
        self.found.borrow_mut().push(Fault::new(key, what));
    }
    /// All that were noted.
    pub fn into_vec(self) -> Vec<Fault> {
        self.found.into_inner()
    }
    /// The full names of the keys that were ignored so far.
    pub fn ignored(&self) -> Vec<String> {
        self.ignored.as_ref().map(|ignored| ignored.borrow().clone()).unwrap_or_default()
    }
}

/// The keys of one table. Each getter answers none when the key is absent or faulty (which is noted); keys that nobody
/// asked for are faults unless [`Faults`] ignore them, so that in a file no slip of the pen passes as a default.
pub struct Fields<'a> {
    at: String,
    table: Option<&'a Map<String, Value>>,
    asked: RefCell<Vec<&'static str>>,
    faults: &'a Faults,
}

impl<'a> Fields<'a> {
    /// The keys of what must be a table.
    pub fn of(at: &str, value: &'a Value, faults: &'a Faults) -> Self {
        if !value.is_object() {
            faults.add(at, format!("must be a table, not {}", type_name(value)));
        }
        Self { at: at.to_owned(), table: value.as_object(), asked: RefCell::default(), faults }
    }

    /// The full name of a key.
    pub fn path(&self, key: &str) -> String {
        join(&self.at, key)
    }
    /// Notes a fault of a key.
    pub fn fault(&self, key: &str, what: impl Into<String>) {
        self.faults.add(self.path(key), what);
    }

    /// Notes a fault of an item, whose full name a list told.
    pub fn fault_at(&self, at: String, what: impl Into<String>) {
        self.faults.add(at, what);
    }

    fn get(&self, key: &'static str) -> Option<&'a Value> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        drop(asked);
        // JSON's null is how some clients leave a key out.
        self.table?.get(key).filter(|v| !v.is_null())
    }
    fn wrong(&self, key: &str, wanted: &str, value: &Value) {
        self.fault(key, format!("must be {wanted}, not {}", type_name(value)));
    }

    /// Whether the key is there at all.
    pub fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }
    /// Notes the key as missing unless it is there.
    pub fn require(&self, key: &'static str) {
        if self.table.is_some() && !self.has(key) {
            self.fault(key, "is missing");
        }
    }
    /// A text.
    pub fn text(&self, key: &'static str) -> Option<&'a str> {
        let value = self.get(key)?;
        if !value.is_string() {
            self.wrong(key, "a string", value);
        }
        value.as_str()
    }
    /// A text, checked.
    pub fn parsed<T, E: fmt::Display>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        let parsed = parse(self.text(key)?);
        parsed.map_err(|e| self.fault(key, e.to_string())).ok()
    }
    /// True or false.
    pub fn flag(&self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        if !value.is_boolean() {
            self.wrong(key, "true or false", value);
        }
        value.as_bool()
    }
    /// A whole number within bounds.
    pub fn integer(&self, key: &'static str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        if !value.is_i64() && !value.is_u64() {
            self.wrong(key, "a whole number", value);
            return None;
        }
        let number = value.as_u64().filter(|n| bounds.contains(n));
        if number.is_none() {
            self.fault(key, format!("must be from {} to {}", bounds.start(), bounds.end()));
        }
        number
    }
    /// As [`Self::integer`], or a decimal string: so integers may come over HTTP.
    pub fn integer_or_decimal(&self, key: &'static str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let digits = self.get(key)?.as_str().filter(|text| text.bytes().all(|c| c.is_ascii_digit()));
        let decimal = digits.and_then(|text| text.parse().ok());
        decimal.filter(|number| bounds.contains(number)).or_else(|| self.integer(key, bounds))
    }
    /// A duration, in milliseconds: a text such as `"8m"`, or a bare number of seconds.
    pub fn duration(&self, key: &'static str) -> Option<u64> {
        let value = self.get(key)?;
        let parsed = match value {
            Value::String(text) => milliseconds(text),
            Value::Number(number) => match number.as_u64().and_then(|n| n.checked_mul(1000)) {
                Some(ms) if ms <= MAX_DURATION_MS => Ok(ms),
                _ => Err(DurationFault),
            },
            _ => Err(DurationFault),
        };
        parsed.map_err(|e| self.fault(key, e.to_string())).ok()
    }
    /// A list, with the full name of each item; none when absent.
    pub fn list(&self, key: &'static str) -> Option<Vec<(String, &'a Value)>> {
        let value = self.get(key)?;
        if !value.is_array() {
            self.wrong(key, "a list", value);
        }
        let at = self.path(key);
        Some(value.as_array()?.iter().enumerate().map(|(n, v)| (format!("{at}[{n}]"), v)).collect())
    }
    /// A list of texts; none when absent. Items that are faulty are left out.
    pub fn texts(&self, key: &'static str) -> Option<Vec<(String, &'a str)>> {
        let item = |(at, value): (String, &'a Value)| match value.as_str() {
            Some(text) => Some((at, text)),
            None => {
                self.faults.add(at, format!("must be a string, not {}", type_name(value)));
                None
            }
        };
        Some(self.list(key)?.into_iter().filter_map(item).collect())
    }
    /// A table; none when absent.
    pub fn table(&self, key: &'static str) -> Option<Fields<'a>> {
        Some(Fields::of(&self.path(key), self.get(key)?, self.faults))
    }
    /// A list of tables; empty when absent.
    pub fn tables(&self, key: &'static str) -> Vec<Fields<'a>> {
        let list = self.list(key).unwrap_or_default();
        list.into_iter().map(|(at, value)| Fields::of(&at, value, self.faults)).collect()
    }
    /// Notes the keys that nobody asked for.
    pub fn finish(self) {
        let asked = self.asked.take();
        let Some(table) = self.table else { return };
        for key in table.keys().filter(|k| !asked.contains(&k.as_str())) {
            if let Some(ignored) = &self.faults.ignored {
                ignored.borrow_mut().push(self.path(key));
                continue;
            }
            self.fault(key, format!("is not a key that is known here; known are {}", asked.join(", ")));
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(n) if n.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// A text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a duration such as \"500ms\", \"120s\", \"8m\" or \"1h\" (a bare number is seconds), at most a year")]
pub struct DurationFault;

/// Reads a duration such as `500ms`, `120s`, `8m` or `1h`; in milliseconds. A bare number is seconds.
pub fn milliseconds(text: &str) -> Result<u64, DurationFault> {
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        let ms = text.parse::<u64>().ok().and_then(|s| s.checked_mul(1000));
        return ms.filter(|ms| *ms <= MAX_DURATION_MS).ok_or(DurationFault);
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| DurationFault)?;
    let ms = u64::try_from(duration.as_millis()).map_err(|_| DurationFault)?;
    if ms <= MAX_DURATION_MS { Ok(ms) } else { Err(DurationFault) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_in_their_units() {
        for (text, ms) in
            [("500ms", 500), ("120s", 120_000), ("8m", 480_000), ("1h", 3_600_000), ("30", 30_000), ("0s", 0)]
        {
            assert_eq!(milliseconds(text), Ok(ms), "{text}");
        }
        for text in ["", "-5s", "s", "5 parsecs", "99999999h", "99999999999999999999", "8m nonsense"] {
            assert_eq!(milliseconds(text), Err(DurationFault), "{text}");
        }
    }

    #[test]
    fn a_fault_is_found_at_its_line_or_that_of_the_table_around_it() {
        let text = "listen = \"x\"\n\n[[client]]\nclient_id = \"acme\"\nects = [\n  \"a\",\n  \"b\",\n]\n[client.iva]\ntimeout = 1\n";
        let source = Source::parse("t.toml", text).unwrap();
        for (key, line) in [
            ("listen", 1),
            ("client[0].client_id", 4),
            ("client[0].fqdn", 3),
            ("client[0].ects[1]", 7),
            ("client[0].iva.url", 9),
        ] {
            assert_eq!(source.locate(Fault::new(key, "x")).line, Some(line), "{key}");
        }
    }

    #[test]
    fn a_broken_file_is_named_with_the_line() {
        for (text, line) in [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ("[x\n", 1), ("\n\nk = \"open\n", 3)] {
            let faults = Source::parse("t.toml", text).unwrap_err();
            assert_eq!(faults[0].line, Some(line), "{text:?}: {faults:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(?s).{0,200}|([a-z.\\[\\]{}=\"',#0-9_\n -]{0,200})") {
            let _ = Source::parse("t.toml", &text);
            let _ = milliseconds(&text);
        }
    }
}
