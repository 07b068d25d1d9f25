//! A bar chart as SVG: groups on the x axis, one bar per series in each. Integers only, no script, no outside resource.
//! Knows neither invoices nor files.

use std::fmt::{self, Display, Formatter};

const WIDTH: u64 = 720;
const HEIGHT: u64 = 360;
/// The area of the bars.
const LEFT: u64 = 64;
const RIGHT: u64 = 696;
const TOP: u64 = 92;
const BOTTOM: u64 = 316;
/// The width of a group below which its values would overlap those beside it, and are not drawn.
const VALUES_ROOM_MIN: u64 = 60;
/// The least distance between labels of the x axis.
const LABELS_ROOM_MIN: u64 = 48;
/// The most steps of the y axis.
const STEPS_MAX: u64 = 5;

/// Drawn on a background of its own, so that light and dark pages show the same. Okabe and Ito's palette can be
/// distinguished by colour-blind readers too.
const COLOURS: [&str; 4] = ["#0072b2", "#009e73", "#d55e00", "#cc79a7"];

/// The data of a chart.
#[derive(Clone, Debug)]
pub struct BarChart {
    pub title: String,
    pub subtitle: String,
    /// At most as many series as there are colours; further series are not drawn.
    pub series: Vec<String>,
    pub groups: Vec<Group>,
}

/// The bars above one label of the x axis, in the order of the series.
#[derive(Clone, Debug)]
pub struct Group {
    pub label: String,
    pub values: Vec<u64>,
}

/// Text escaped for XML; every text is written by it. Characters that XML 1.0 does not allow are replaced.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => f.write_str("\u{fffd}"),
            control if control.is_control() => f.write_str("\u{fffd}"),
            other => write!(f, "{other}"),
        })
    }
}

/// Step of the y axis: 1, 2 or 5 times a power of ten, so that few steps reach the largest value.
fn step_for(largest: u64) -> u64 {
    let mut power: u64 = 1;
    loop {
        for factor in [1, 2, 5] {
            let step = power.saturating_mul(factor);
            if largest.div_ceil(step) <= STEPS_MAX {
                return step;
            }
        }
        power = power.saturating_mul(10);
    }
}

/// The height of a value, rounded up so that a small value is visible.
fn height_of(value: u64, top: u64) -> u64 {
    let height = (u128::from(value) * u128::from(BOTTOM - TOP)).div_ceil(u128::from(top.max(1)));
    u64::try_from(height).unwrap_or(BOTTOM - TOP)
}

impl BarChart {
    /// The value at the top of the y axis, and the step of its marks.
    fn scale(&self) -> (u64, u64) {
        let largest = self.groups.iter().flat_map(|group| &group.values).copied().max().unwrap_or(0);
        let step = step_for(largest);
        (largest.div_ceil(step).max(1).saturating_mul(step), step)
    }

    fn legend(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, (name, colour)) in (0..).zip(self.series.iter().zip(COLOURS)) {
            let x: u64 = LEFT + at * 150;
            writeln!(f, r#"<rect x="{x}" y="62" width="12" height="12" fill="{colour}"/>"#)?;
            writeln!(f, r#"<text x="{}" y="73">{}</text>"#, x + 18, Escaped(name))?;
        }
        Ok(())
    }

    fn axis(&self, f: &mut Formatter<'_>, (top, step): (u64, u64)) -> fmt::Result {
        for nth in 0..=top / step {
            let (value, y) = (nth * step, BOTTOM - height_of(nth * step, top));
            writeln!(f, r##"<path d="M{LEFT} {y}H{RIGHT}" stroke="#d0d7de"/>"##)?;
            writeln!(f, r#"<text x="{}" y="{}" text-anchor="end">{value}</text>"#, LEFT - 8, y + 4)?;
        }
        Ok(())
    }

    fn bars(&self, f: &mut Formatter<'_>, top: u64) -> fmt::Result {
        let room = (RIGHT - LEFT) / u64::try_from(self.groups.len().max(1)).unwrap_or(u64::MAX);
        let count = u64::try_from(self.series.len().clamp(1, COLOURS.len())).unwrap_or(1);
        let width = (room * 4 / 5 / count).max(1);
        let labels_step = usize::try_from(LABELS_ROOM_MIN.div_ceil(room.max(1))).unwrap_or(usize::MAX);
        for (index, (at, group)) in (0..).zip(&self.groups).enumerate() {
            let left: u64 = LEFT + at * room + (room - (width * count).min(room)) / 2;
            for (nth, (value, colour)) in (0..).zip(group.values.iter().zip(COLOURS)) {
                let (x, height): (u64, _) = (left + nth * width, height_of(*value, top));
                let y = BOTTOM - height;
                writeln!(
                    f,
                    r#"<rect x="{x}" y="{y}" width="{}" height="{height}" fill="{colour}"/>"#,
                    (width - width / 8).max(1)
                )?;
                if room < VALUES_ROOM_MIN {
                    continue;
                }
                let middle = x + width / 2;
                writeln!(f, r#"<text x="{middle}" y="{}" text-anchor="middle">{value}</text>"#, y - 5)?;
            }
            // Counted from the last group, which is the newest where groups are days.
            if !(self.groups.len() - 1 - index).is_multiple_of(labels_step) {
                continue;
            }
            let (middle, y) = (LEFT + at * room + room / 2, BOTTOM + 22);
            writeln!(
                f,
                r#"<text x="{middle}" y="{y}" text-anchor="middle">{}</text>"#,
                Escaped(&group.label)
            )?;
        }
        Ok(())
    }
}

impl Display for BarChart {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (title, subtitle) = (Escaped(&self.title), Escaped(&self.subtitle));
        writeln!(
            f,
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}" font-family="system-ui, sans-serif" font-size="13" fill="#1f2328">"##
        )?;
        writeln!(f, r##"<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff"/>"##)?;
        writeln!(f, r#"<text x="{LEFT}" y="28" font-size="17" font-weight="600">{title}</text>"#)?;
        writeln!(f, r##"<text x="{LEFT}" y="48" fill="#59636e">{subtitle}</text>"##)?;
        self.legend(f)?;
        let scale = self.scale();
        self.axis(f, scale)?;
        self.bars(f, scale.0)?;
        writeln!(f, "</svg>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(label: &str, values: &[u64]) -> String {
        let group = Group { label: label.to_owned(), values: values.to_vec() };
        let series = vec!["a".to_owned(), "b".to_owned()];
        BarChart { title: String::new(), subtitle: String::new(), series, groups: vec![group] }.to_string()
    }

    #[test]
    fn steps_are_round_and_few() {
        let cases = [
            (0, 1),
            (1, 1),
            (5, 1),
            (6, 2),
            (11, 5),
            (26, 10),
            (51, 20),
            (1_000_000, 200_000),
            (1_000_001, 500_000),
        ];
        for (largest, step) in cases {
            assert_eq!(step_for(largest), step, "{largest}");
        }
        assert!(u64::MAX.div_ceil(step_for(u64::MAX)) <= STEPS_MAX);
    }

    #[test]
    fn every_text_is_escaped() {
        let svg = chart("<script>\"a\" & b</script>\u{7}", &[1, 2]);
        assert!(svg.contains("&lt;script&gt;&quot;a&quot; &amp; b&lt;/script&gt;\u{fffd}"), "{svg}");
        assert!(!svg.contains("<script"), "{svg}");
    }

    #[test]
    fn labels_and_values_of_many_groups_do_not_run_into_each_other() {
        let group = |day: u64| Group { label: format!("day {day}"), values: vec![day * 100_001] };
        let groups: Vec<_> = (1..=30).map(group).collect();
        let series = vec!["a".to_owned()];
        let svg = BarChart { title: String::new(), subtitle: String::new(), series, groups }.to_string();
        assert_eq!(svg.matches("day ").count(), 10, "{svg}");
        assert!(svg.contains(">day 30<") && !svg.contains(">day 29<") && !svg.contains("3000030"), "{svg}");
        assert_eq!(svg.matches("fill=\"#0072b2\"").count(), 31, "{svg}");
    }

    #[test]
    fn the_largest_value_fits_and_what_is_not_zero_is_seen() {
        assert_eq!((height_of(0, 10), height_of(1, u64::MAX), height_of(10, 10)), (0, 1, BOTTOM - TOP));
        let svg = chart("x", &[u64::MAX, 1]);
        assert!(svg.contains(&u64::MAX.to_string()), "{svg}");
    }
}
