//! How what was measured is printed.

use std::time::Duration;

pub fn quantile(took: &[Duration], part: f64) -> f64 {
    let mut took = took.to_vec();
    took.sort_unstable();
    let at = ((took.len() - 1) as f64 * part).round() as usize;
    took[at].as_secs_f64() * 1000.0
}

pub fn row(name: &str, took: &[Duration], floor: Option<f64>) {
    let (p50, p99) = (quantile(took, 0.5), quantile(took, 0.99));
    let times = floor.map_or(String::new(), |floor| format!("   {:.1} x the floor", p50 / floor));
    println!("  {name:<34} {p50:>8.2} / {p99:>8.2}{times}");
}
