//! Charts: where bars and lines stand. The template makes SVG of it.

use super::markup;
use crate::time::Time;

/// A bar chart.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) bars: Vec<Bar>,
    /// Height of the line of the limit, and what is written on it.
    pub(super) limit: Option<(u64, String)>,
    /// Heights of the lines of the scale, and their amounts.
    pub(super) scale: Vec<(u64, String)>,
    /// Places of the names below, and the names.
    pub(super) names: Vec<(u64, String)>,
    /// What it says, for who cannot see it.
    pub(super) summary: String,
}

/// A bar: what was there before, and what came on top.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) x: u64,
    pub(super) width: u64,
    /// Top and height of what was there before.
    pub(super) before: (u64, u64),
    /// Top and height of what came on top.
    pub(super) own: (u64, u64),
    /// What it stands for, to be read when pointed at.
    pub(super) title: String,
    /// Whether it drops out next.
    pub(super) is_next_out: bool,
}

/// What a bar stands for.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) name: String,
    pub(super) count: u64,
    /// When it began, where that is no whole day.
    pub(super) at: Option<Time>,
}

impl Chart {
    /// Returns the chart of a window in which calls add up: each bar stands on those before it, and
    /// the last one is as high as what is used.
    pub(super) fn adding_up(values: &[Value], limit: u64) -> Self {
        let total = values.iter().fold(0_u64, |sum, value| sum.saturating_add(value.count));
        let next_out = values.iter().position(|value| value.count > 0);
        let mut before = 0_u64;
        let stacked = values.iter().enumerate().map(|(index, value)| {
            let stack = (before, value.count, next_out == Some(index));
            before = before.saturating_add(value.count);
            stack
        });
        let stacked: Vec<_> = stacked.collect();
        let summary = format!(
            "{} of {} used, over {} bars that stand on each other",
            markup::number(&total),
            markup::number(&limit),
            values.len()
        );
        Self::draw(values, &stacked, Some(limit), total, summary)
    }

    /// Returns the chart of counts that stand side by side, under the line of a limit for each.
    pub(super) fn side_by_side(values: &[Value], limit: Option<u64>) -> Self {
        let stacked: Vec<_> = values.iter().map(|value| (0, value.count, false)).collect();
        let highest = values.iter().map(|value| value.count).max().unwrap_or(0);
        let most = values.iter().find(|value| value.count == highest && highest > 0);
        let summary = match most {
            Some(value) => {
                format!("the most was {} in {}", markup::number(&highest), value.name)
            }
            None => "no calls".to_owned(),
        };
        Self::draw(values, &stacked, limit, highest, summary)
    }

    fn draw(
        values: &[Value],
        stacked: &[(u64, u64, bool)],
        limit: Option<u64>,
        highest: u64,
        summary: String,
    ) -> Self {
        // A limit far above what is used would press all bars flat: its line is then above the scale.
        let is_in_sight = |limit: &u64| highest == 0 || *limit / LIMIT_IN_SIGHT <= highest;
        let top = limit.filter(is_in_sight).unwrap_or(0).max(highest).max(1);
        let height = |count: u64| {
            let height = u128::from(count) * u128::from(PLOT_HEIGHT) * 10 / (u128::from(top) * 11);
            u64::try_from(height).unwrap_or(PLOT_HEIGHT)
        };
        let y = |count: u64| PLOT_TOP + PLOT_HEIGHT - height(count).min(PLOT_HEIGHT);
        let count = u64::try_from(values.len()).unwrap_or(1).max(1);
        let place = |index: usize| {
            PLOT_LEFT + PLOT_WIDTH * u64::try_from(index).unwrap_or_default() / count
        };
        let bars = values.iter().zip(stacked).enumerate().map(|(index, (value, stack))| {
            let (before, own, is_next_out) = *stack;
            let width = place(index + 1) - place(index);
            let top = y(before.saturating_add(own));
            // What was called at all can be seen.
            let top = if own > 0 { top.min(y(before).saturating_sub(2)) } else { top };
            Bar {
                x: place(index),
                width: (width - width / 5).max(1),
                before: (y(before), PLOT_TOP + PLOT_HEIGHT - y(before)),
                own: (top, y(before) - top),
                title: format!("{}: {}", value.name, markup::count(&value.count, "call", "calls")),
                is_next_out,
            }
        });
        let named = [0, values.len() / 2, values.len().saturating_sub(1)];
        let half = Some(top / 2).filter(|_| top.is_multiple_of(2));
        let scale = std::iter::once(0).chain(half).chain(std::iter::once(top));
        let mut names: Vec<(u64, String)> = named
            .into_iter()
            .filter_map(|index| Some((place(index), values.get(index)?.name.clone())))
            .collect();
        names.dedup();
        Self {
            bars: bars.collect(),
            limit: limit.map(|limit| {
                let amount = markup::number(&limit);
                if is_in_sight(&limit) {
                    (y(limit), format!("limit {amount}"))
                } else {
                    (PLOT_TOP, format!("limit {amount}, far above"))
                }
            }),
            scale: scale.map(|count| (y(count), compact(count))).collect(),
            names,
            summary,
        }
    }
}

/// Returns a number as it fits beside a chart, such as `1.5M`.
fn compact(number: u64) -> String {
    let (unit, name) = match number {
        n if n >= 1_000_000 => (1_000_000, "M"),
        n if n >= 10_000 => (1_000, "k"),
        _ => return markup::number(&number),
    };
    match number % unit * 10 / unit {
        0 => format!("{}{name}", markup::number(&(number / unit))),
        tenths => format!("{}.{tenths}{name}", markup::number(&(number / unit))),
    }
}

/// How many times what is used a limit may be to be drawn to scale.
const LIMIT_IN_SIGHT: u64 = 50;

// Where the bars stand, in units of the picture, which is 1000 wide and 300 high.
const PLOT_LEFT: u64 = 110;
const PLOT_TOP: u64 = 16;
const PLOT_WIDTH: u64 = 880;
const PLOT_HEIGHT: u64 = 244;

#[cfg(test)]
mod tests {
    use super::*;

    fn values(counts: &[u64]) -> Vec<Value> {
        counts.iter().map(|&count| Value { name: "day".to_owned(), count, at: None }).collect()
    }

    #[test]
    fn last_bar_of_a_window_is_as_high_as_what_is_used() {
        let chart = Chart::adding_up(&values(&[0, 30, 0, 70]), 100);
        let [first, second, third, last] = chart.bars.as_slice() else { panic!("four bars") };
        assert_eq!(first.own.1, 0);
        assert!(!first.is_next_out && second.is_next_out && !third.is_next_out);
        assert_eq!(last.own.0, chart.limit.as_ref().unwrap().0, "it reaches the line");
        assert_eq!(last.own.0 + last.own.1, last.before.0);
        assert_eq!(last.before.0 + last.before.1, PLOT_TOP + PLOT_HEIGHT);
    }

    #[test]
    fn scale_has_short_numbers() {
        for (number, shown) in
            [(9_999, "9,999"), (12_500, "12.5k"), (500_000, "500k"), (1_500_000, "1.5M")]
        {
            assert_eq!(compact(number), shown);
        }
    }

    #[test]
    fn no_counts_are_too_large_and_none_too_few() {
        for counts in [&[][..], &[0], &[u64::MAX, u64::MAX], &[1; 366]] {
            for limit in [0, 1, u64::MAX] {
                let chart = Chart::adding_up(&values(counts), limit);
                assert_eq!(chart.bars.len(), counts.len());
                Chart::side_by_side(&values(counts), Some(limit));
            }
        }
    }
}
