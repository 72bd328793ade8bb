//! Lines of measurements as tables in Markdown: the median of each case, and its ratio to each other system.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io;

const OURS: &str = "ours";

/// A table: what it is about, its columns, and which of them are also given as a ratio.
struct Layout {
    kinds: &'static [&'static str],
    /// Name in the measurement, and head.
    columns: &'static [(&'static str, &'static str)],
    ratios: &'static [(&'static str, &'static str)],
}

const LAYOUTS: [Layout; 10] = [
    Layout {
        kinds: &["produce", "e2e", "consume"],
        columns: &[
            ("mb_per_s", "MB/s"),
            ("p50_ms", "p50 ms"),
            ("p99_ms", "p99 ms"),
            ("cpu_s_per_gb", "CPU-s/GB"),
            ("written_per_byte", "written"),
        ],
        ratios: &[("mb_per_s", "MB/s"), ("p99_ms", "p99"), ("cpu_s_per_gb", "CPU")],
    },
    Layout {
        kinds: &["group"],
        columns: &[
            ("form_s", "forms, s"),
            ("leave_s", "some leave, s"),
            ("join_s", "some join, s"),
            ("rebalance_cpu_s", "CPU-s of these"),
            ("steady_cpu_ms_per_s", "CPU-ms/s at rest"),
            ("p99_ms", "heartbeat p99 ms"),
        ],
        ratios: &[
            ("form_s", "forms"),
            ("leave_s", "leave"),
            ("join_s", "join"),
            ("rebalance_cpu_s", "CPU"),
            ("steady_cpu_ms_per_s", "CPU at rest"),
        ],
    },
    Layout {
        kinds: &["commits"],
        columns: &[("per_s", "commits/s"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"), ("cpu_us_each", "CPU-µs each")],
        ratios: &[("per_s", "commits/s"), ("p99_ms", "p99"), ("cpu_us_each", "CPU")],
    },
    Layout {
        kinds: &["transactions"],
        columns: &[
            ("per_s", "transactions/s"),
            ("p50_ms", "commit p50 ms"),
            ("p99_ms", "commit p99 ms"),
            ("begin_p99_ms", "first batch p99 ms"),
            ("cpu_us_each", "CPU-µs each"),
        ],
        ratios: &[("per_s", "transactions/s"), ("p99_ms", "commit p99"), ("cpu_us_each", "CPU")],
    },
    Layout {
        kinds: &["members"],
        columns: &[
            ("kib_per_member", "KiB a member"),
            ("kib_per_connection", "KiB a connection"),
            ("pss_before_kib", "PSS before, KiB"),
            ("pss_idle_kib", "PSS with all, KiB"),
        ],
        ratios: &[],
    },
    Layout {
        kinds: &["compaction"],
        columns: &[
            ("mb_per_s", "MB/s"),
            ("p50_ms", "p50 ms"),
            ("p99_ms", "p99 ms"),
            ("cpu_ms_per_s", "CPU-ms/s"),
            ("cleaner_passes", "passes"),
            ("written_per_reclaimed", "written/reclaimed"),
            ("live_mb", "live MB"),
            ("size_mb_first_half", "most MB, 1st half"),
            ("size_mb_second_half", "2nd half"),
            ("catch_up_s", "then at rest after s"),
        ],
        ratios: &[("p99_ms", "p99"), ("cpu_ms_per_s", "CPU")],
    },
    Layout { kinds: &["commands"], columns: &[("p50_ms", "p50 ms"), ("p99_ms", "p99 ms")], ratios: &[] },
    Layout {
        kinds: &["failover", "recovery"],
        columns: &[
            ("led", "led by the killed node"),
            ("half_ms", "half of them, ms"),
            ("all_ms", "all, ms"),
            ("mb_per_s", "MB/s"),
        ],
        ratios: &[("all_ms", "all")],
    },
    Layout {
        kinds: &["move"],
        columns: &[("move_ms", "moved, ms"), ("gap_ms", "longest gap, ms"), ("copied_mb", "copied, MB")],
        ratios: &[("move_ms", "moved"), ("gap_ms", "gap")],
    },
    Layout {
        kinds: &["steady"],
        columns: &[
            ("produce_done", "produced"),
            ("produce_repeated", "repeated"),
            ("produce_failed", "failed"),
            ("produce_longest_ms", "longest ms"),
            ("fetch_done", "fetches"),
            ("fetch_failed", "failed"),
            ("commit_done", "commits"),
            ("commit_failed", "failed"),
            ("commit_longest_ms", "longest ms"),
            ("missing", "lost"),
        ],
        ratios: &[],
    },
];

/// What is measured: kind, clients or rate, bytes of a batch or what else counts, and how that is called.
type Case = (String, u64, u64, String);
/// All values of one number of one case, by system.
type Values = BTreeMap<String, Vec<f64>>;
type Cases = BTreeMap<Case, BTreeMap<&'static str, Values>>;

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Reads files of JSON lines and prints a table for each kind of measurement in them.
pub fn print(files: &[String]) -> io::Result<()> {
    let mut lines = vec![];
    for file in files {
        let text = std::fs::read_to_string(file)?;
        lines.extend(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
    }
    for layout in &LAYOUTS {
        let cases = gather(layout, &lines);
        if !cases.is_empty() {
            print_one(layout, &cases);
            println!();
        }
    }
    Ok(())
}

fn gather(layout: &Layout, lines: &[Value]) -> Cases {
    let mut cases = Cases::new();
    for line in lines {
        let number = |name: &str| line.get(name).and_then(Value::as_u64).unwrap_or(0);
        let text = |name: &str| line.get(name).and_then(Value::as_str);
        let what = text("what").unwrap_or("?").to_string();
        if !layout.kinds.contains(&what.as_str()) {
            continue;
        }
        let (clients, batch) = (number("clients"), number("batch"));
        let called = match text("case") {
            Some(case) => format!("{what}: {case}"),
            None => format!("{what} {clients} × {batch} B"),
        };
        let case = cases.entry((what, clients, batch, called)).or_default();
        let label = text("label").unwrap_or("?");
        for (name, _) in layout.columns {
            let values = case.entry(*name).or_default().entry(label.to_string()).or_default();
            values.extend(line.get(*name).and_then(Value::as_f64));
        }
    }
    cases
}

fn print_one(layout: &Layout, cases: &Cases) {
    let heads = |columns: &[(&str, &'static str)]| columns.iter().map(|(_, head)| *head).collect::<Vec<_>>();
    let (columns, ratios) = (heads(layout.columns), heads(layout.ratios));
    let compared = if ratios.is_empty() { String::new() } else { format!(" ours ÷ it: {} |", ratios.join(" | ")) };
    println!("| case | system | runs | {} |{compared}", columns.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(columns.len() + ratios.len()));
    for ((_, _, _, called), values) in cases {
        let systems: Vec<&String> = values.values().next().map(|v| v.keys().collect()).unwrap_or_default();
        for system in systems {
            let of =
                |name: &str, system: &str| values.get(name).and_then(|v| v.get(system)).map_or(f64::NAN, |v| median(v));
            let runs = values.values().filter_map(|v| v.get(system)).map(Vec::len).max().unwrap_or(0);
            let shown: Vec<_> = layout.columns.iter().map(|(name, _)| number(of(name, system))).collect();
            let ratio = |(name, _): &(&str, &str)| {
                if system == OURS { String::new() } else { number(of(name, OURS) / of(name, system)) }
            };
            let compared: String = layout.ratios.iter().map(|column| format!(" {} |", ratio(column))).collect();
            println!("| {called} | {system} | {runs} | {} |{compared}", shown.join(" | "));
        }
    }
}

fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "–".into(),
        v if v.abs() >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}
