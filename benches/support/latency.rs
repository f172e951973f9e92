//! Measuring how long a notification takes until a thread has it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use hdrhistogram::Histogram;
use postgres::{Client, NoTls};

/// One way to receive notifications, and a session that sends them.
pub struct Subject {
    pub name: &'static str,
    pub histogram: Histogram<u64>,
    channel: String,
    notifier: Client,
    arrivals: Receiver<Instant>,
    sent: u64,
}

/// The channel in each subject's database.
pub const CHANNEL: &str = "bench";

impl Subject {
    /// Makes a database, since a NOTIFY wakes every listener of its database, and starts there.
    pub fn start(
        name: &'static str,
        params: &str,
        receive: impl FnOnce(&str, Sender<Instant>),
    ) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut admin = Client::connect(params, NoTls).expect("a session");
        let database = format!("bench_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        admin
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .expect("a database");
        let params = format!("{params} dbname={database}");
        Self::start_on(name, &params, CHANNEL, receive)
    }

    /// Lets `receive` listen on this channel, and waits until notifications arrive. `receive` gets the parameters of a connection and
    /// where to send the time of each arrival.
    pub fn start_on(
        name: &'static str,
        params: &str,
        channel: &str,
        receive: impl FnOnce(&str, Sender<Instant>),
    ) -> Self {
        let (arrived, arrivals) = unbounded();
        receive(params, arrived);
        let notifier = Client::connect(params, NoTls).expect("a session");
        let mut subject = Self {
            name,
            histogram: Histogram::new(3).expect("a histogram"),
            channel: channel.to_owned(),
            notifier,
            arrivals,
            sent: 0,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !subject.is_listening() {
            assert!(Instant::now() < deadline, "{name} hears nothing");
        }
        subject
    }

    /// Sends one notification and records how long it took to arrive.
    pub fn round(&mut self) {
        let start = self.notify();
        let arrival = self.arrivals.recv().expect("a receiver");
        let latency = arrival.saturating_duration_since(start).as_nanos();
        self.histogram.record(latency as u64).expect("a latency");
    }

    fn is_listening(&mut self) -> bool {
        self.notify();
        self.arrivals
            .recv_timeout(Duration::from_millis(100))
            .is_ok()
    }

    /// The same bytes for every subject: an announcement that changes a tag, and so causes an event.
    fn notify(&mut self) -> Instant {
        self.sent += 1;
        let (n, channel) = (self.sent, &self.channel);
        let statement = format!(
            "NOTIFY {channel}, 'pg-peers/1 beat name=peer@10.0.0.1:7000 inc=1 seq={n} due=86400000 tag.n={n};'"
        );
        let start = Instant::now();
        self.notifier.batch_execute(&statement).expect("NOTIFY");
        start
    }
}

/// Lets what a round left behind come to rest, so that the next subject does not pay for it.
const REST: Duration = Duration::from_micros(300);

/// Runs the subjects in turn, so that what disturbs one disturbs all, and each as often after each of the others.
pub fn measure(subjects: &mut [Subject], rounds: u64) {
    for round in 0..rounds + rounds / 20 {
        if round == rounds / 20 {
            subjects
                .iter_mut()
                .for_each(|subject| subject.histogram.reset());
        }
        let count = subjects.len();
        let forwards = (round / count as u64) % 2 == 0;
        for step in 0..count {
            let step = if forwards { step } else { count - 1 - step };
            thread::sleep(REST);
            subjects[(step + round as usize) % count].round();
        }
    }
}

const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

/// What times are told in.
#[derive(Clone, Copy)]
pub enum Unit {
    Micros,
    Millis,
}

/// A table in Markdown. It leaves out a quantile beyond which not even one round lies.
pub fn table<'a>(
    unit: Unit,
    title: &str,
    rows: impl IntoIterator<Item = (&'a str, &'a Histogram<u64>)>,
) -> String {
    let heads = QUANTILES.map(|(name, _)| format!(" {name:>9} |")).concat();
    let rules = QUANTILES.map(|_| "----------:|").concat();
    let (unit, nanos, digits) = match unit {
        Unit::Micros => ("us", 1e3, 1),
        Unit::Millis => ("ms", 1e6, 2),
    };
    let title = format!("{unit}, {title}");
    let mut text = format!(
        "| {title:46} | rounds |{heads}\n|{}|-------:|{rules}\n",
        "-".repeat(48)
    );
    for (name, histogram) in rows {
        let values = QUANTILES.map(|(_, quantile)| {
            let time = histogram.value_at_quantile(quantile) as f64 / nanos;
            let least = (1.0 / (1.0 - quantile)).round();
            match quantile < 1.0 && (histogram.len() as f64) < least {
                true => format!(" {:9} |", ""),
                false => format!(" {time:9.digits$} |"),
            }
        });
        text += &format!("| {name:46} | {:6} |{}\n", histogram.len(), values.concat());
    }
    text
}

/// How one compares with another at a quantile.
pub fn ratio(one: &Histogram<u64>, other: &Histogram<u64>, quantile: f64) -> f64 {
    one.value_at_quantile(quantile) as f64 / other.value_at_quantile(quantile) as f64
}
