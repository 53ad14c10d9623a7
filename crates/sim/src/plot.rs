//! Completion curves as SVG.

use std::fmt::Write as _;

use crate::figures::Figures;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Room for the axes' numbers and titles: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (56.0, 36.0, 16.0, 48.0);
/// Colours that colour-blind readers can tell apart (Okabe and Ito).
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
];
/// The axis goes at least this far, so that good runs look alike.
const LEAST: f64 = 1.5;

/// The share of peers that are done over time, where 1 on the time axis is the fluid bound: one curve per run.
pub fn curves(title: &str, runs: &[&Figures]) -> String {
    let last = runs.iter().map(|run| run.main.last).fold(LEAST, f64::max);
    let far = (last * 1.05 * 4.0).ceil() / 4.0;
    let (left, top, right, bottom) = MARGIN;
    let (wide, high) = (WIDTH - left - right, HEIGHT - top - bottom);
    let x = |time: f64| left + wide * time / far;
    let y = |share: f64| top + high * (1.0 - share);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    let step = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0]
        .into_iter()
        .find(|step| far / step <= 12.0)
        .unwrap_or(100.0);
    for tick in 0..=(far / step) as u32 {
        let time = f64::from(tick) * step;
        put(&mut svg, &rule((x(time), y(0.0)), (x(time), y(1.0)), "#ddd"));
        put(&mut svg, &label(x(time), y(0.0) + 18.0, "middle", &format!("{time}")));
    }
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        put(&mut svg, &rule((x(0.0), y(share)), (x(far), y(share)), "#ddd"));
        put(
            &mut svg,
            &label(left - 6.0, y(share) + 4.0, "end", &format!("{} %", quarter * 25)),
        );
    }
    put(&mut svg, &rule((x(1.0), y(0.0)), (x(1.0), y(1.0)), "#888"));
    put(
        &mut svg,
        &label(left + wide / 2.0, HEIGHT - 10.0, "middle", "time over the fluid bound"),
    );
    for (index, run) in runs.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut points = format!("{:.1},{:.1}", x(0.0), y(0.0));
        let mut before = 0.0;
        for (time, share) in &run.curve {
            let _ = write!(
                points,
                " {:.1},{:.1} {:.1},{:.1}",
                x(*time),
                y(before),
                x(*time),
                y(*share)
            );
            before = *share;
        }
        put(
            &mut svg,
            &format!("<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{points}\"/>"),
        );
        let line = top + 16.0 * (index as f64 + 1.0);
        let key = format!(
            "{} (seed {}): median {:.2}, last {:.2}",
            run.name, run.seed, run.main.median, run.main.last
        );
        put(
            &mut svg,
            &rule((left + 8.0, line - 4.0), (left + 28.0, line - 4.0), colour),
        );
        put(&mut svg, &label(left + 34.0, line, "start", &key));
    }
    svg + "</svg>\n"
}

fn rule((x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>")
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escaped(text)
    )
}

fn put(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
