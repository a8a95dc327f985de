//! Horizontal bars as SVG, readable on light and dark pages, on small screens, and by those who hear what is on them.
//!
//! A page that is dark may still have a reader whose system is light, and the other way around: so the chart brings its own ground
//! along, and its texts are never on any other.

use std::fmt::Write;

/// Whose bar it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Ours,
    Peer,
    /// Not a server: the price of the kernel.
    Floor,
}

/// One bar.
pub struct Bar {
    pub label: String,
    pub value: f64,
    /// From the low to the high end of an interval.
    pub whisker: Option<(f64, f64)>,
    pub role: Role,
    pub text: String,
}

/// One bar per row.
pub struct Chart<'a> {
    pub title: &'a str,
    pub bars: Vec<Bar>,
    /// Drawn across, with its name.
    pub line: Option<(f64, &'a str)>,
    /// Below all, a line each.
    pub notes: &'a [&'a str],
}

/// Units of the drawing, which are pixels where there is room for all of it. On a telephone half of them are left, so letters are large.
const WIDTH: f64 = 640.0;
const LABELS: f64 = 142.0;
const FIGURES: f64 = 138.0;
const ROW: f64 = 26.0;
const NOTE: f64 = 17.0;

const STYLE: &str = "text{fill:#1f2328}.g{fill:#fff;stroke:#d1d9e0}.t{font-weight:bold}.n{font-size:12px;fill:#59636e}\
    .p{fill:#8aa0b8}.o{fill:#d9702b}.f{fill:#fff;stroke:#8aa0b8;stroke-dasharray:3 2}.w{stroke:#1f2328}\
    .l{stroke:#d9702b;stroke-dasharray:4 3}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.g{fill:#0d1117;stroke:#3d444d}.n{fill:#9198a1}.p{fill:#5c7694}\
    .f{fill:#0d1117}.w{stroke:#e6edf3}}";

impl Chart<'_> {
    /// The whole file.
    pub fn svg(&self) -> String {
        let below = if self.line.is_some() { 24.0 } else { 8.0 };
        let end_of_bars = 38.0 + ROW * self.bars.len() as f64;
        let height = end_of_bars + below + NOTE * self.notes.len() as f64;
        let most = self
            .bars
            .iter()
            .map(|bar| bar.whisker.map_or(bar.value, |(_, high)| high.min(bar.value * 1.5)))
            .fold(self.line.map_or(0.0, |(value, _)| value), f64::max)
            .max(f64::MIN_POSITIVE);
        let x = |value: f64| LABELS + (WIDTH - LABELS - FIGURES) * (value / most).min(1.0);
        let rows: Vec<String> = self.bars.iter().map(|bar| format!("{} {}", bar.label, bar.text)).collect();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\" aria-labelledby=\"title desc\" font-family=\"system-ui,sans-serif\" font-size=\"14\">\n\
             <title id=\"title\">{title}</title>\n<desc id=\"desc\">{}. {}</desc>\n<style>{STYLE}</style>\n\
             <rect class=\"g\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n\
             <text class=\"t\" x=\"12\" y=\"24\">{title}</text>\n",
            escape(&rows.join("; ")),
            escape(&self.notes.join(" ")),
            WIDTH - 1.0,
            height - 1.0,
            title = escape(self.title),
        );
        for (nth, bar) in self.bars.iter().enumerate() {
            let top = 38.0 + ROW * nth as f64;
            let middle = top + ROW / 2.0 - 4.0;
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect class=\"{}\" x=\"{LABELS}\" y=\"{top}\" \
                 width=\"{:.1}\" height=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>",
                LABELS - 8.0,
                middle + 5.0,
                escape(&bar.label),
                match bar.role {
                    Role::Ours => "o",
                    Role::Peer => "p",
                    Role::Floor => "f",
                },
                x(bar.value) - LABELS,
                ROW - 8.0,
                WIDTH - FIGURES + 10.0,
                middle + 5.0,
                escape(&bar.text),
            );
            if let Some((low, high)) = bar.whisker {
                let _ = writeln!(
                    svg,
                    "<line class=\"w\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>",
                    x(low),
                    x(high)
                );
            }
        }
        if let Some((value, name)) = self.line {
            let _ = writeln!(
                svg,
                "<line class=\"l\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"34\" y2=\"{1}\"/><text class=\"n\" x=\"{0:.1}\" \
                 y=\"{2}\" text-anchor=\"middle\">{3}</text>",
                x(value),
                end_of_bars - 2.0,
                end_of_bars + 11.0,
                escape(name)
            );
        }
        for (nth, note) in self.notes.iter().enumerate() {
            let y = end_of_bars + below + NOTE * nth as f64 + 6.0;
            let _ = writeln!(svg, "<text class=\"n\" x=\"12\" y=\"{y}\">{}</text>", escape(note));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> String {
        let bar = Bar {
            label: "a<b".into(),
            value: 2.0,
            whisker: Some((1.0, 9.0)),
            role: Role::Peer,
            text: "2 us".into(),
        };
        Chart { title: "x & y", bars: vec![bar], line: Some((1.0, "floor")), notes: &["below > all"] }.svg()
    }

    #[test]
    fn a_chart_is_well_formed_and_escapes_its_texts() {
        let svg = chart();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a&lt;b") && svg.contains("x &amp; y") && !svg.contains("NaN"));
        assert!(svg.contains("below &gt; all"));
        assert_eq!(svg.matches("<rect").count(), 2, "the ground and the bar");
        let lines = svg.matches("<line").count();
        assert_eq!(lines, 2, "the whisker and the floor");
    }

    #[test]
    fn who_hears_a_chart_hears_its_title_and_every_row() {
        let svg = chart();
        assert!(svg.contains("role=\"img\" aria-labelledby=\"title desc\""), "{svg}");
        assert!(svg.contains("<title id=\"title\">x &amp; y</title>"), "{svg}");
        assert!(svg.contains("<desc id=\"desc\">a&lt;b 2 us. below &gt; all</desc>"), "{svg}");
    }
}
