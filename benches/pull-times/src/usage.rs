//! What processes use, by `/proc`: everything that runs in some network namespaces, while a run takes.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::memory::rss_anon;
use e2e::{Network, Traffic};
use rustix::param::clock_ticks_per_second;
use serde::Serialize;

/// Between two looks at memory. Buffers of a transfer live for seconds.
const EVERY: Duration = Duration::from_millis(250);
/// Between two entries of the timeline, in looks.
const TIMELINE: u32 = 4;

/// What a run has used.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Usage {
    /// Processor seconds of the system: its processes, and whatever they or we have started and seen end.
    pub cpu_seconds: f64,
    /// The same by `HOST/PROGRAM`, as it was last seen: programs that end have a little more.
    pub cpu_by_program: BTreeMap<String, f64>,
    /// The share of the machine's processors that was busy with anything.
    pub machine_busy: f64,
    /// The most anonymous memory of each process in bytes, by `HOST/PROGRAM`.
    pub peak_anonymous: BTreeMap<String, u64>,
    /// What has passed each link so far, by the second.
    pub timeline: Vec<Moment>,
}

/// An entry of the timeline.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    /// Seconds since the start.
    pub at: f64,
    /// Bytes so far to each host, headers included.
    pub received: BTreeMap<String, u64>,
    /// Bytes so far from each host.
    pub sent: BTreeMap<String, u64>,
}

/// Watches from its start to its [`Watch::finish`].
#[derive(Debug)]
pub struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Usage>,
}

impl Watch {
    /// Watches processes in these namespaces (the number of each, and its host's name), and the links.
    pub fn start(hosts: BTreeMap<u64, String>, network: Network) -> Self {
        let (stop, stopped) = mpsc::channel();
        let start = Instant::now();
        let (processes, reaped, machine) = (cpu_seconds(&hosts), reaped_seconds(), machine_ticks());
        let before = network.traffic();
        let watch = move || {
            let (mut usage, mut by_process) = (Usage::default(), ByProcess::new());
            note_cpu(&hosts, &mut by_process, true);
            for look in 0_u32.. {
                let end = !matches!(stopped.recv_timeout(EVERY), Err(RecvTimeoutError::Timeout));
                note_memory(&hosts, &mut usage.peak_anonymous);
                note_cpu(&hosts, &mut by_process, false);
                if end || look % TIMELINE == TIMELINE - 1 {
                    usage.timeline.push(moment(start, &before, &network.traffic()));
                }
                if end {
                    break;
                }
            }
            usage.cpu_seconds = cpu_seconds(&hosts) - processes + reaped_seconds() - reaped;
            usage.cpu_by_program = by_program(by_process);
            usage.machine_busy = busy(machine, machine_ticks());
            usage
        };
        Self {
            stop,
            thread: std::thread::spawn(watch),
        }
    }

    /// What was seen.
    pub fn finish(self) -> Usage {
        // It listens until it is told.
        let _ = self.stop.send(());
        self.thread.join().expect("watching does not panic")
    }
}

fn moment(start: Instant, before: &BTreeMap<String, Traffic>, now: &BTreeMap<String, Traffic>) -> Moment {
    let since = |of: fn(&Traffic) -> u64| {
        let one = |(name, traffic): (&String, &Traffic)| (name.clone(), of(traffic) - before.get(name).map_or(0, of));
        now.iter().map(one).collect()
    };
    Moment {
        at: start.elapsed().as_secs_f64(),
        received: since(|traffic| traffic.received),
        sent: since(|traffic| traffic.sent),
    }
}

/// The processes in these namespaces, with their hosts' names.
fn inside(hosts: &BTreeMap<u64, String>) -> Vec<(u32, &str)> {
    let entries = fs::read_dir("/proc").expect("Linux has it");
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let placed = |pid: u32| {
        // It may end while we look.
        let namespace = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
        let number = namespace
            .to_str()?
            .strip_prefix("net:[")?
            .strip_suffix(']')?
            .parse()
            .ok()?;
        Some((pid, hosts.get(&number)?.as_str()))
    };
    pids.filter_map(placed).collect()
}

/// Of all processes that run there, with what their ended children have used.
fn cpu_seconds(hosts: &BTreeMap<u64, String>) -> f64 {
    let stats = inside(hosts).into_iter().filter_map(|(pid, _)| stat(pid));
    let ticks: u64 = stats.map(|stat| stat.own + stat.reaped).sum();
    ticks as f64 / clock_ticks_per_second() as f64
}

/// Of our own ended children, the pulls.
fn reaped_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("we run");
    let stat = Stat::parse(&stat).expect("the kernel writes them all alike");
    stat.reaped as f64 / clock_ticks_per_second() as f64
}

/// Of each process its host and program, and its own ticks as they were first and last seen.
type ByProcess = BTreeMap<u32, (String, u64, u64)>;

/// What was not there at the start has used nothing before it was seen.
fn note_cpu(hosts: &BTreeMap<u64, String>, seen: &mut ByProcess, at_start: bool) {
    for (pid, host) in inside(hosts) {
        let Some((program, stat)) = program(pid).zip(stat(pid)) else {
            continue;
        };
        let first = if at_start { stat.own } else { 0 };
        let entry = seen.entry(pid).or_insert_with(|| (String::new(), first, 0));
        // Programs begin as something else, such as `ip`.
        (entry.0, entry.2) = (format!("{host}/{program}"), stat.own);
    }
}

fn by_program(seen: ByProcess) -> BTreeMap<String, f64> {
    let mut programs = BTreeMap::new();
    for (name, first, last) in seen.into_values() {
        *programs.entry(name).or_default() += last.saturating_sub(first) as f64 / clock_ticks_per_second() as f64;
    }
    programs
}

fn stat(pid: u32) -> Option<Stat> {
    Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// What runs there, with its subcommand where it has one: a node and a pull may be the same binary.
fn program(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let subcommand = line.split('\0').nth(1).filter(|word| is_subcommand(word));
    Some(match subcommand {
        Some(subcommand) => format!("{} {subcommand}", name.trim()),
        None => name.trim().to_owned(),
    })
}

fn is_subcommand(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|c| c.is_ascii_lowercase())
}

fn note_memory(hosts: &BTreeMap<u64, String>, peaks: &mut BTreeMap<String, u64>) {
    for (pid, host) in inside(hosts) {
        let Some((now, program)) = rss_anon(pid).zip(program(pid)) else {
            continue;
        };
        let peak = peaks.entry(format!("{host}/{program}")).or_default();
        *peak = now.max(*peak);
    }
}

/// Ticks of `/proc/PID/stat` (man 5 proc, fields 14 to 17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    own: u64,
    reaped: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The name, in parentheses, may contain anything.
        let (_, rest) = line.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
        let mut two = || Some(fields.next()?? + fields.next()??);
        Some(Self {
            own: two()?,
            reaped: two()?,
        })
    }
}

/// Busy and all ticks of all processors so far.
fn machine_ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").expect("Linux has it");
    parse_machine(&stat).expect("the kernel writes them all alike")
}

fn parse_machine(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; what guests use is in user.
    let ticks: Option<Vec<u64>> = line
        .split_whitespace()
        .take(8)
        .map(|field| field.parse().ok())
        .collect();
    let ticks = ticks?;
    let all = ticks.iter().sum();
    Some((all - ticks.get(3)? - ticks.get(4)?, all))
}

fn busy(before: (u64, u64), after: (u64, u64)) -> f64 {
    (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_any_name_is_read() {
        let line = "12 (a) b (c) S 1 12 12 0 -1 4194560 10 20 0 0 7 8 100 200 20 0 4 0 99";
        assert_eq!(Stat::parse(line), Some(Stat { own: 15, reaped: 300 }));
        assert_eq!(Stat::parse("12 (short) S 1"), None);
    }

    #[test]
    fn a_machine_is_busy_when_it_neither_idles_nor_waits() {
        let ticks = parse_machine("cpu  10 1 5 60 20 1 2 1 0 0\ncpu0 1 2 3\n");
        assert_eq!(ticks, Some((20, 100)));
        assert!((busy((20, 100), (95, 200)) - 0.75).abs() < 1e-9);
        assert_eq!(parse_machine("intr 1"), None);
    }

    #[test]
    fn subcommands_are_told_from_arguments() {
        assert!(is_subcommand("peer") && is_subcommand("pull"));
        assert!(!["", "--config", "./x", "600"].into_iter().any(is_subcommand));
    }

    #[test]
    fn this_process_is_in_its_namespace() {
        let namespace = fs::read_link("/proc/self/ns/net").unwrap();
        let number = namespace
            .to_str()
            .unwrap()
            .trim_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .unwrap();
        let hosts = BTreeMap::from([(number, "here".to_owned())]);
        assert!(inside(&hosts).contains(&(std::process::id(), "here")));
        let mut peaks = BTreeMap::new();
        note_memory(&hosts, &mut peaks);
        assert!(peaks.iter().any(|(name, peak)| name.starts_with("here/") && *peak > 0));
    }
}
