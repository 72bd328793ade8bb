//! Lines of measurements as a table in Markdown: the median of each case, and its ratio to each other system.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io;

const OURS: &str = "ours";
const COLUMNS: [(&str, &str); 5] = [
    ("mb_per_s", "MB/s"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("cpu_s_per_gb", "CPU-s/GB"),
    ("written_per_byte", "written"),
];

/// What is measured: kind, clients or rate, bytes of a batch.
type Case = (String, u64, u64);
/// All values of one number of one case, by system.
type Values = BTreeMap<String, Vec<f64>>;

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Reads files of JSON lines and prints the table.
pub fn print(files: &[String]) -> io::Result<()> {
    let mut cases: BTreeMap<Case, BTreeMap<&str, Values>> = BTreeMap::new();
    for file in files {
        for line in std::fs::read_to_string(file)?.lines() {
            let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
            let number = |name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
            let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("?").to_string();
            let case = cases.entry((text("what"), number("clients"), number("batch"))).or_default();
            for (name, _) in COLUMNS {
                if let Some(measured) = value.get(name).and_then(Value::as_f64) {
                    case.entry(name).or_default().entry(text("label")).or_default().push(measured);
                }
            }
        }
    }
    let heads: Vec<&str> = COLUMNS.iter().map(|(_, head)| *head).collect();
    println!("| case | system | runs | {} | ours ÷ it: MB/s | p99 | CPU |", heads.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(COLUMNS.len() + 3));
    for ((what, clients, batch), columns) in &cases {
        let systems: Vec<&String> = columns.values().next().map(|v| v.keys().collect()).unwrap_or_default();
        for system in systems {
            let of = |name: &str, system: &str| {
                columns.get(name).and_then(|v| v.get(system)).map_or(f64::NAN, |v| median(v))
            };
            let runs = columns["mb_per_s"].get(system).map_or(0, Vec::len);
            let shown = COLUMNS.map(|(name, _)| number(of(name, system)));
            let ratio = |name| if system == OURS { "".into() } else { number(of(name, OURS) / of(name, system)) };
            let ratios = ["mb_per_s", "p99_ms", "cpu_s_per_gb"].map(ratio);
            let case = format!("{what} {clients} × {batch} B");
            println!("| {case} | {system} | {runs} | {} | {} |", shown.join(" | "), ratios.join(" | "));
        }
    }
    Ok(())
}

fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "–".into(),
        v if v.abs() >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}
