//! Plots as SVG: pure functions from numbers to text.
//!
//! Colours and fonts come from the page by class, so that a plot follows its light or dark theme. Lines differ in dashes
//! and marks as well as in colour, and every plot has its content in words.

use std::fmt::Write;

use crate::base::text::escaped;

/// Size of a plot in its own units. It is scaled to the width of the page; text is 13 units high.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 250.0;
/// The frame of the data within it.
const LEFT: f64 = 58.0;
const RIGHT: f64 = WIDTH - 14.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = HEIGHT - 44.0;
/// Points of one line. A longer line is thinned out; each point then is the highest of those that it stands for, so that
/// no peak is lost.
const POINTS_MAX: usize = 400;

/// One plot.
pub struct Plot {
    /// A name that is unique on the page.
    pub id: &'static str,
    /// The title.
    pub title: String,
    /// What it shows, in words.
    pub description: String,
    /// The names of the axes, with units.
    pub axes: [&'static str; 2],
    /// Whether the vertical axis is logarithmic.
    pub is_logarithmic: bool,
    /// The lines.
    pub lines: Vec<Line>,
    /// A limit with its name, as a horizontal line.
    pub bound: Option<(f64, String)>,
    /// Parts of the horizontal axis with their names: from, to, name.
    pub spans: Vec<(f64, f64, String)>,
}

/// One line of a plot.
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// Its points, by the horizontal axis; where the value is `None`, the line is interrupted.
    pub points: Vec<(f64, Option<f64>)>,
    /// Marks at single points.
    pub marks: Vec<(f64, f64, Mark)>,
}

/// The mark of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A measurement within the bounds: a filled circle.
    Good,
    /// One outside: a cross.
    Broken,
    /// A repeated one: an empty circle.
    Again,
}

/// One axis from data to units of the plot.
struct Scale {
    from: f64,
    to: f64,
    /// Where `from` and `to` are.
    ends: (f64, f64),
    is_logarithmic: bool,
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let ease = |value: f64| if self.is_logarithmic { value.max(self.from).log10() } else { value };
        let (from, to) = (ease(self.from), ease(self.to));
        let share = (ease(value) - from) / (to - from).max(f64::MIN_POSITIVE);
        self.ends.0 + share.clamp(0.0, 1.0) * (self.ends.1 - self.ends.0)
    }
}

/// Draws a plot.
pub fn svg(plot: &Plot) -> String {
    let x = horizontal(plot);
    let (y, ticks) = vertical(plot);
    let mut out = String::new();
    let (id, title, text) = (plot.id, escape(&plot.title), escape(&plot.description));
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\n\
         <title id=\"{id}-t\">{title}</title>\n<desc id=\"{id}-d\">{text}</desc>\n"
    );
    for (index, (from, to, name)) in plot.spans.iter().enumerate() {
        let (from, to) = (x.at(*from), x.at(*to));
        let _ = writeln!(
            out,
            "<rect class=\"span\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            (to - from).max(1.0),
            BOTTOM - TOP
        );
        // Names of narrow spans would overlap.
        let width = (to - from).max(1.0) + if index + 1 < plot.spans.len() { 4.0 } else { 12.0 };
        if width >= 7.5 * name.chars().count() as f64 {
            label(&mut out, (from + to) / 2.0, TOP - 6.0, "middle", name);
        }
    }
    for tick in &ticks {
        let at = y.at(*tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
        );
        label(&mut out, LEFT - 7.0, at + 4.5, "end", &number(*tick));
    }
    for tick in ticks_between(x.from, x.to, 6) {
        let at = x.at(tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{BOTTOM}\" y2=\"{:.1}\"/>",
            BOTTOM + 4.0
        );
        label(&mut out, at, BOTTOM + 18.0, "middle", &number(tick));
    }
    let _ =
        writeln!(out, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>");
    label(&mut out, (LEFT + RIGHT) / 2.0, HEIGHT - 8.0, "middle", plot.axes[0]);
    if let Some((value, name)) = &plot.bound {
        let at = y.at(*value);
        let _ = writeln!(
            out,
            "<line class=\"bound\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
        );
        label(&mut out, LEFT + 5.0, at - 5.0, "start", name);
    }
    for (index, line) in plot.lines.iter().enumerate() {
        draw(&mut out, index, line, &x, &y);
    }
    out.push_str("</svg>\n");
    out
}

/// The horizontal axis, over all points and spans.
fn horizontal(plot: &Plot) -> Scale {
    let points = plot.lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x));
    let spans = plot.spans.iter().flat_map(|(from, to, _)| [*from, *to]);
    let largest = points.chain(spans).fold(0.0, f64::max);
    Scale {
        from: 0.0,
        to: if largest > 0.0 { largest } else { 1.0 },
        ends: (LEFT, RIGHT),
        is_logarithmic: false,
    }
}

/// The vertical axis with its ticks.
fn vertical(plot: &Plot) -> (Scale, Vec<f64>) {
    let ends = (BOTTOM, TOP);
    let values: Vec<f64> = plot
        .lines
        .iter()
        .flat_map(|line| {
            let points = line.points.iter().filter_map(|(_, y)| *y);
            points.chain(line.marks.iter().map(|(_, y, _)| *y))
        })
        .collect();
    let largest =
        values.iter().copied().chain(plot.bound.iter().map(|(bound, _)| *bound)).fold(0.0, f64::max);
    if plot.is_logarithmic {
        let smallest = values.iter().copied().filter(|value| *value > 0.0).fold(largest.max(1e-3), f64::min);
        let (first, last) =
            (smallest.log10().floor() as i32, (largest.max(1e-2) * 1.1).log10().ceil() as i32);
        let last = last.max(first + 1);
        let ticks = (first..=last).map(|power| 10_f64.powi(power)).collect();
        return (
            Scale { from: 10_f64.powi(first), to: 10_f64.powi(last), ends, is_logarithmic: true },
            ticks,
        );
    }
    let to = if largest > 0.0 { largest * 1.12 } else { 1.0 };
    (Scale { from: 0.0, to, ends, is_logarithmic: false }, ticks_between(0.0, to, 5))
}

fn draw(out: &mut String, index: usize, line: &Line, x: &Scale, y: &Scale) {
    for part in line.points.split(|(_, value)| value.is_none()).filter(|part| !part.is_empty()) {
        let path: Vec<String> =
            thin(part).iter().map(|(at, value)| format!("{:.1},{:.1}", x.at(*at), y.at(*value))).collect();
        let _ = writeln!(out, "<polyline class=\"line l{index}\" points=\"{}\"/>", path.join(" "));
    }
    for (at, value, mark) in &line.marks {
        let (at, value) = (x.at(*at), y.at(*value));
        let _ = match mark {
            Mark::Good => {
                writeln!(out, "<circle class=\"mark m{index}\" cx=\"{at:.1}\" cy=\"{value:.1}\" r=\"4\"/>")
            }
            Mark::Again => {
                writeln!(out, "<circle class=\"again m{index}\" cx=\"{at:.1}\" cy=\"{value:.1}\" r=\"7\"/>")
            }
            Mark::Broken => {
                let (left, right, top, bottom) = (at - 5.0, at + 5.0, value - 5.0, value + 5.0);
                writeln!(
                    out,
                    "<path class=\"broken m{index}\" d=\"M{left:.1} {top:.1}L{right:.1} {bottom:.1}M{left:.1} \
                     {bottom:.1}L{right:.1} {top:.1}\"/>"
                )
            }
        };
    }
}

/// Returns at most [`POINTS_MAX`] points, each the highest of those that it stands for.
fn thin(points: &[(f64, Option<f64>)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(POINTS_MAX).max(1);
    let highest = |part: &[(f64, Option<f64>)]| {
        let known = part.iter().filter_map(|(x, y)| Some((*x, (*y)?)));
        known.max_by(|(_, a), (_, b)| a.total_cmp(b))
    };
    points.chunks(size).filter_map(highest).collect()
}

/// Returns round numbers from `from` to `to`, about `count`.
fn ticks_between(from: f64, to: f64, count: u32) -> Vec<f64> {
    let raw = (to - from) / f64::from(count.max(1));
    if !raw.is_finite() || raw <= 0.0 {
        return vec![from];
    }
    let power = 10_f64.powf(raw.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= raw * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = (from / step).ceil() as i64;
    let last = (to / step * 1.000_001).floor() as i64;
    (first..=last).take(50).map(|n| n as f64 * step).collect()
}

/// Formats a tick without needless digits.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if value >= 10_000.0 {
        // A narrow no-break space between thousands.
        let (head, tail) = text.split_at(text.len() - 3);
        return format!("{head}\u{202f}{tail}");
    }
    text.to_owned()
}

fn label(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = escape(text);
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

/// Replaces the characters that have a meaning in HTML and SVG, and control characters, which neither may contain.
pub fn escape(text: &str) -> String {
    let clean = |letter: char| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter };
    escaped(&text.chars().map(clean).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, Option<f64>)>) -> Plot {
        Plot {
            id: "loss",
            title: "Loss <over> pupils".into(),
            description: "\"loss\" & more".into(),
            axes: ["pupils", "%"],
            is_logarithmic: false,
            lines: vec![Line {
                name: "loss",
                points,
                marks: vec![(30.0, 0.2, Mark::Broken), (60.0, 0.1, Mark::Again)],
            }],
            bound: Some((0.5, "bound".into())),
            spans: vec![(0.0, 30.0, "30".into())],
        }
    }

    #[test]
    fn data_is_inside_the_frame_and_text_is_escaped() {
        let svg = svg(&plot(vec![(30.0, Some(0.0)), (60.0, Some(0.5)), (90.0, None), (120.0, Some(4.0))]));
        assert!(
            svg.contains("Loss &lt;over&gt; pupils") && svg.contains("&quot;loss&quot; &amp; more"),
            "{svg}"
        );
        assert_eq!(svg.matches("<polyline").count(), 2, "an unknown value interrupts the line");
        for points in svg.split("points=\"").skip(1).map(|rest| rest.split('"').next().expect("quoted")) {
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').expect("a point");
                let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
                assert!((LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y), "{point}");
            }
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn plots_without_data_and_with_zeros_have_finite_axes() {
        for is_logarithmic in [false, true] {
            for points in [vec![], vec![(0.0, Some(0.0))], vec![(5.0, None)], vec![(5.0, Some(1e9))]] {
                let empty = Plot { is_logarithmic, bound: None, ..plot(points) };
                let text = svg(&empty);
                assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
            }
        }
    }

    #[test]
    fn long_lines_keep_their_peaks() {
        let points: Vec<_> =
            (0..5_000).map(|n| (f64::from(n), Some(if n == 1_234 { 9.0 } else { 1.0 }))).collect();
        let thinned = thin(&points);
        assert!(thinned.len() <= POINTS_MAX);
        assert!(thinned.contains(&(1_234.0, 9.0)));
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks_between(0.0, 100.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks_between(0.0, 0.011, 5).len(), 3);
        assert_eq!(ticks_between(0.0, 0.0, 5), [0.0]);
        assert_eq!([0.0, 0.5, 20.0, 12_000.0].map(number), ["0", "0.5", "20", "12\u{202f}000"]);
    }

    #[test]
    fn nothing_is_left_unescaped() {
        assert_eq!(escape("<a b=\"c\">&'\u{7}"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;\u{fffd}");
    }
}
