//! Horizontal bars as SVG, readable on light and dark pages.

use std::fmt::Write;

/// One bar.
pub struct Bar {
    pub label: String,
    pub value: f64,
    /// From the low to the high end of an interval.
    pub whisker: Option<(f64, f64)>,
    pub is_ours: bool,
    pub text: String,
}

const WIDTH: f64 = 760.0;
const LABELS: f64 = 170.0;
const FIGURES: f64 = 150.0;
const ROW: f64 = 26.0;

/// A chart with one bar per row; `line` is drawn across, with its name.
pub fn bars(title: &str, bars: &[Bar], line: Option<(f64, &str)>) -> String {
    let height = 60.0 + ROW * bars.len() as f64;
    let most = bars
        .iter()
        .map(|bar| bar.whisker.map_or(bar.value, |(_, high)| high.min(bar.value * 1.5)))
        .fold(line.map_or(0.0, |(value, _)| value), f64::max)
        .max(f64::MIN_POSITIVE);
    let x = |value: f64| LABELS + (WIDTH - LABELS - FIGURES) * (value / most).min(1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<style>text{{fill:#222}}.t{{font-weight:bold}}.b{{fill:#8aa0b8}}.o{{fill:#d9702b}}\
         .w{{stroke:#222;stroke-width:1}}.l{{stroke:#888;stroke-dasharray:4 3}}\
         @media(prefers-color-scheme:dark){{text{{fill:#ddd}}.w{{stroke:#ddd}}}}</style>\n\
         <text class=\"t\" x=\"8\" y=\"22\">{}</text>\n",
        escape(title)
    );
    for (nth, bar) in bars.iter().enumerate() {
        let top = 38.0 + ROW * nth as f64;
        let middle = top + ROW / 2.0 - 3.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect class=\"{}\" x=\"{LABELS}\" y=\"{top}\" \
             width=\"{:.1}\" height=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            LABELS - 8.0,
            middle + 5.0,
            escape(&bar.label),
            if bar.is_ours { "o" } else { "b" },
            x(bar.value) - LABELS,
            ROW - 8.0,
            WIDTH - FIGURES + 8.0,
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
    if let Some((value, name)) = line {
        let _ = writeln!(
            svg,
            "<line class=\"l\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"34\" y2=\"{1}\"/><text x=\"{0:.1}\" y=\"{2}\" \
             text-anchor=\"middle\">{3}</text>",
            x(value),
            height - 18.0,
            height - 5.0,
            escape(name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_well_formed_and_escapes_its_texts() {
        let bar = Bar {
            label: "a<b".into(),
            value: 2.0,
            whisker: Some((1.0, 9.0)),
            is_ours: true,
            text: "2 us".into(),
        };
        let svg = bars("x & y", &[bar], Some((1.0, "floor")));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a&lt;b") && svg.contains("x &amp; y") && !svg.contains("NaN"));
        assert_eq!(svg.matches("<rect").count(), 1);
        let lines = svg.matches("<line").count();
        assert_eq!(lines, 2, "the whisker and the floor");
    }
}
