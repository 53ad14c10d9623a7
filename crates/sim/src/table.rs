//! Figures as a table of text.

use crate::figures::{Figures, Group};

/// The table's columns: title and width.
const COLUMNS: [(&str, usize); 17] = [
    ("scenario", 24),
    ("seed", 4),
    ("nodes", 6),
    ("pieces", 6),
    ("bound s", 8),
    ("median", 7),
    ("p99", 7),
    ("last", 7),
    ("1st 1/4", 7),
    ("lag", 5),
    ("registry", 8),
    ("seeds", 6),
    ("zone", 6),
    ("waste", 6),
    ("msg/node", 8),
    ("sched/s", 8),
    ("events", 11),
];

/// What the process itself can say about a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Seconds it took.
    pub wall_s: f64,
    /// The most memory that the process has held so far.
    pub peak_mib: f64,
}

/// The table's first lines.
pub fn head() -> String {
    let titles = COLUMNS.map(|(title, width)| format!("{title:>width$}"));
    format!(
        "{}   wall s  peak MiB\n",
        titles
            .join(" ")
            .replacen("                scenario", "scenario                ", 1)
    )
}

/// One run's line, and one for each group that is shown apart.
pub fn row(figures: &Figures, cost: Cost) -> String {
    let zone = figures.zone_ratios.iter().copied().fold(0.0, f64::max);
    let zones = if figures.zone_ratios.len() > 1 {
        format!("{zone:.2}")
    } else {
        "-".into()
    };
    let fields = [
        figures.name.clone(),
        figures.seed.to_string(),
        figures.nodes.to_string(),
        figures.pieces.to_string(),
        format!("{:.2}", figures.bound.seconds()),
        ratio(&figures.main, figures.main.median),
        ratio(&figures.main, figures.main.p99),
        ratio(&figures.main, figures.main.last),
        ratio(&figures.main, figures.main.quarter),
        format!("{:.2}", figures.main.lag),
        format!("{:.3}", figures.registry_ratio),
        format!("{:.2}", figures.seed_ratio),
        zones,
        format!("{:.3}", figures.waste),
        format!("{:.0}", figures.messages_per_node),
        format!("{:.0}", figures.scheduler_requests_per_second),
        figures.events.to_string(),
    ];
    let mut line = line(&fields);
    line += &format!(" {:8.1} {:9.0}\n", cost.wall_s, cost.peak_mib);
    for group in &figures.apart {
        line += &apart(group);
    }
    if figures.main.unfinished > 0 {
        line += &format!("  ! {} peers have not got the model\n", figures.main.unfinished);
    }
    for violation in &figures.violations {
        line += &format!("  ! {violation}\n");
    }
    line
}

fn apart(group: &Group) -> String {
    let mut fields: [String; 17] = Default::default();
    fields[0] = format!("  of these: {}", group.name);
    fields[2] = group.nodes.to_string();
    fields[5] = ratio(group, group.median);
    fields[6] = ratio(group, group.p99);
    fields[7] = ratio(group, group.last);
    fields[8] = ratio(group, group.quarter);
    fields[9] = format!("{:.2}", group.lag);
    let mut line = line(&fields).trim_end().to_owned();
    if group.unfinished > 0 {
        line += &format!("  ! {} have not got the model", group.unfinished);
    }
    line + "\n"
}

fn line(fields: &[String; 17]) -> String {
    let padded = fields
        .iter()
        .zip(COLUMNS)
        .enumerate()
        .map(|(column, (field, (_, width)))| {
            if column == 0 {
                format!("{field:<width$}")
            } else {
                format!("{field:>width$}")
            }
        });
    padded.collect::<Vec<_>>().join(" ")
}

fn ratio(group: &Group, value: f64) -> String {
    if group.nodes == group.unfinished {
        "-".into()
    } else {
        format!("{value:.3}")
    }
}
