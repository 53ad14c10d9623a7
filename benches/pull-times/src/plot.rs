//! Results as a picture: seconds of the slowest node over the number of nodes, one line per system.

use std::fmt::Write as _;

use crate::figures::Row;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Room for the axes' numbers and titles.
const LEFT: f64 = 64.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 24.0;
const BOTTOM: f64 = 52.0;
/// Colours that colour-blind readers can tell apart (Okabe and Ito).
const COLOURS: [&str; 6] = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// Steps of the axis of seconds, of which there should be few.
const STEPS: [f64; 9] = [0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0];
const FEW: f64 = 8.0;

/// Where values lie in the picture.
struct Axes {
    nodes: f64,
    seconds: f64,
}

impl Axes {
    fn x(&self, nodes: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * nodes / self.nodes
    }

    fn y(&self, seconds: f64) -> f64 {
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - seconds / self.seconds)
    }
}

/// Draws rows. Each point is the middle of its runs; a bar goes from the fastest to the slowest of them.
pub fn plot(title: &str, rows: &[Row]) -> String {
    let most = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).fold(1.0, f64::max);
    let axes = Axes {
        nodes: most(&|row| f64::from(row.nodes)) * 1.04,
        seconds: most(&|row| row.slowest.most) * 1.08,
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}",
        text(LEFT, 22.0, "start", title)
    );
    grid(&mut svg, &axes, rows);
    let mut systems: Vec<&str> = Vec::new();
    for row in rows {
        if !systems.contains(&row.system.as_str()) {
            systems.push(&row.system);
        }
    }
    for (number, system) in systems.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let of_it = rows.iter().filter(|row| row.system == *system);
        curve(&mut svg, &axes, colour, &of_it.collect::<Vec<_>>());
        let line = TOP + 16.0 * (number as f64 + 1.0);
        svg += &rule((LEFT + 10.0, line - 4.0), (LEFT + 30.0, line - 4.0), colour);
        svg += &text(LEFT + 36.0, line, "start", &format!("{system}: slowest node"));
    }
    bounds(&mut svg, &axes, rows);
    let line = TOP + 16.0 * (systems.len() as f64 + 1.0);
    svg += &text(LEFT + 36.0, line, "start", "dashed: the links' bound, headers left out");
    svg + "</svg>\n"
}

fn grid(svg: &mut String, axes: &Axes, rows: &[Row]) {
    let step = STEPS
        .into_iter()
        .find(|step| axes.seconds / step <= FEW)
        .unwrap_or(5000.0);
    for tick in 0..=(axes.seconds / step) as u32 {
        let seconds = f64::from(tick) * step;
        let y = axes.y(seconds);
        *svg += &rule((LEFT, y), (WIDTH - RIGHT, y), "#ddd");
        *svg += &text(LEFT - 6.0, y + 4.0, "end", &format!("{seconds} s"));
    }
    let mut counts: Vec<u16> = rows.iter().map(|row| row.nodes).collect();
    counts.sort_unstable();
    counts.dedup();
    for nodes in counts {
        let x = axes.x(f64::from(nodes));
        *svg += &rule((x, axes.y(0.0)), (x, TOP), "#eee");
        *svg += &text(x, HEIGHT - BOTTOM + 18.0, "middle", &nodes.to_string());
    }
    *svg += &text(
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0,
        "middle",
        "nodes that pull at once",
    );
}

fn curve(svg: &mut String, axes: &Axes, colour: &str, rows: &[&Row]) {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| row.nodes);
    let points: Vec<(f64, f64)> = rows
        .iter()
        .map(|row| (axes.x(f64::from(row.nodes)), axes.y(row.slowest.median)))
        .collect();
    *svg += &polyline(&points, colour, "");
    for (row, (x, y)) in rows.iter().zip(points) {
        *svg += &rule((x, axes.y(row.slowest.least)), (x, axes.y(row.slowest.most)), colour);
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
    }
}

fn bounds(svg: &mut String, axes: &Axes, rows: &[Row]) {
    let mut bounds: Vec<(u16, f64)> = rows.iter().map(|row| (row.nodes, row.bound)).collect();
    bounds.sort_by_key(|(nodes, _)| *nodes);
    bounds.dedup();
    let points: Vec<_> = bounds
        .iter()
        .map(|(nodes, bound)| (axes.x(f64::from(*nodes)), axes.y(*bound)))
        .collect();
    *svg += &polyline(&points, "#777", " stroke-dasharray=\"5 4\"");
}

fn polyline(points: &[(f64, f64)], colour: &str, more: &str) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let points = points.join(" ");
    format!("<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{more} points=\"{points}\"/>\n")
}

fn rule((x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) -> String {
    format!(
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n"
    )
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{escaped}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::sample;

    #[test]
    fn every_system_has_its_line_and_points() {
        let svg = plot("a < b", &sample());
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("packswarm pull: slowest node") && svg.contains("straight: slowest node"));
        // One line for each system, and the bound's.
        assert_eq!(
            (svg.matches("<polyline").count(), svg.matches("<circle").count()),
            (3, 2)
        );
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn everything_lies_in_the_picture() {
        let svg = plot("t", &sample());
        for (name, most) in [("cx=\"", WIDTH), ("cy=\"", HEIGHT)] {
            for value in svg.split(name).skip(1) {
                let value: f64 = value.split('"').next().unwrap().parse().unwrap();
                assert!((0.0..=most).contains(&value), "{value}");
            }
        }
    }
}
