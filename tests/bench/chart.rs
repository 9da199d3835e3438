//! The picture of the table: what the filters of each row add to a request.

use crate::report::number;
use crate::table::{Line, Medians, Table};

/// Returns the picture as SVG; colours follow the reader's light or dark mode.
pub(crate) fn draw(table: &Table, setting: &str) -> String {
    let bars: Vec<(String, Medians)> = table.lines.iter().filter_map(bar).collect();
    let longest = bars.iter().map(|(_, medians)| total(medians)).fold(1.0, f64::max);
    let height = f64::from(TOP + BOTTOM) + bars.len() as f64 * f64::from(STEP);
    let mut text = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">
<title>CPU time that filters add to a request, in microseconds</title>
<style>
text {{ font: 13px system-ui, sans-serif; fill: #1f2328 }}
.small {{ font-size: 11px; fill: #59636e }}
.ours {{ fill: #0969da }}
.other {{ fill: #8c959f }}
.asked {{ opacity: 0.45 }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e6edf3 }}
  .small {{ fill: #9198a1 }}
  .ours {{ fill: #4493f8 }}
  .other {{ fill: #6e7681 }}
}}
</style>
<text x="0" y="18">CPU time added to a request, in microseconds (median): of Envoy, and paler of the process that it asks</text>
"#
    );
    let mut y = f64::from(TOP);
    for (name, medians) in &bars {
        let pixels = |us: f64| us.max(0.0) / longest * f64::from(LONGEST);
        let width = pixels(medians.added_us).max(1.0);
        let class = if name.starts_with("Latchkey") { "ours" } else { "other" };
        let asked_at = f64::from(LEFT) + width;
        let asked_width = pixels(medians.asked_us.unwrap_or_default());
        let (middle, end) = (y + 14.0, asked_at + asked_width + 6.0);
        text.push_str(&format!(
            r#"<text x="{}" y="{middle}" text-anchor="end">{}</text>
<rect class="{class}" x="{LEFT}" y="{y}" width="{width:.1}" height="18" rx="2"/>
<rect class="{class} asked" x="{asked_at:.1}" y="{y}" width="{asked_width:.1}" height="18"/>
<text x="{end:.1}" y="{middle}">{}</text>
"#,
            LEFT - 8,
            escaped(name),
            sum(medians)
        ));
        y += f64::from(STEP);
    }
    let below = y + 16.0;
    text.push_str(&format!(
        "<text class=\"small\" x=\"0\" y=\"{below}\">{}</text>\n</svg>\n",
        escaped(setting)
    ));
    text
}

/// Returns how long a bar is, in microseconds.
fn total(medians: &Medians) -> f64 {
    medians.added_us.max(0.0) + medians.asked_us.unwrap_or_default()
}

/// Returns what a bar says.
fn sum(medians: &Medians) -> String {
    match medians.asked_us {
        Some(asked_us) => format!("{:.1} + {asked_us:.1}", medians.added_us),
        None => format!("{:.1}", medians.added_us),
    }
}

/// Returns name and results of a row that has a bar: one that ran, and adds something to another.
fn bar(line: &Line) -> Option<(String, Medians)> {
    let medians = line.medians.as_ref().ok().filter(|_| !line.is_base)?;
    let mut name = line.name.to_owned();
    if line.keys.is_some() {
        name.push_str(&format!(", {} keys", number(line.keys)));
    }
    if line.accounts.is_some_and(|accounts| accounts > 1) {
        name.push_str(&format!(", {} accounts", number(line.accounts)));
    }
    Some((name, *medians))
}

/// Returns a text as XML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Sizes, in pixels. All of it, the part for names, and the longest bar.
const WIDTH: u32 = 900;
const LEFT: u32 = 460;
const LONGEST: u32 = 330;

/// Space above the bars, for each of them, and below them.
const TOP: u32 = 34;
const STEP: u32 = 24;
const BOTTOM: u32 = 30;
