//! What a run was measured on.

use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

/// Processor, memory, kernel, compiler, and how busy it was when asked; for people and for JSON.
pub(crate) fn describe() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let memory: u64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let run = |program: &str, option: &str| {
        let out = Command::new(program).arg(option).output().map(|out| out.stdout).unwrap_or_default();
        String::from_utf8_lossy(&out).trim().to_owned()
    };
    json!({
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_gib": memory >> 20,
        "kernel": run("uname", "-sr"),
        "compiler": run("rustc", "--version"),
        "commit": run_git(),
        "load_average_before": read("/proc/loadavg").split(' ').next().and_then(|load| load.parse::<f64>().ok()),
        "store_on": filesystem(&std::env::temp_dir()),
    })
}

fn run_git() -> String {
    let out = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}

/// One line of the same; a word of warning where a figure would mislead.
pub(crate) fn show(machine: &Value) {
    let text = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
    println!(
        "{} ({} cores), {} GiB, {}, {}, stores on {}; commit {}; load average before {}",
        text("processor"),
        machine["cores"],
        machine["memory_gib"],
        text("kernel"),
        text("compiler"),
        text("store_on"),
        text("commit"),
        machine["load_average_before"],
    );
    if text("store_on").starts_with("tmpfs") {
        println!("warning: stores are in memory, where syncing costs nothing; set TMPDIR to a directory on a disk");
    }
    if machine["load_average_before"].as_f64().is_some_and(|load| load > 0.5) {
        println!("warning: this machine is busy; ratios within the run hold better than the figures themselves");
    }
}

/// The kind of the file system that a path is on.
fn filesystem(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let of = |line: &str| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    let over = mounts.lines().filter_map(of).filter(|(at, _)| path.starts_with(at));
    over.max_by_key(|(at, _)| at.len()).map_or(String::new(), |(_, kind)| kind)
}
