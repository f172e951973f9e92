//! Draws a run of the demo: the roster of each member over time.

use std::fmt::Write;
use std::time::Duration;

const WIDTH: f64 = 880.0;
/// Where time begins, right of the names.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 15.0;
const TOP: f64 = 34.0;
/// A line of text, and the bar of one peer.
const LINE: f64 = 19.0;
const BAR: f64 = 9.0;
/// Between the members.
const GAP: f64 = 14.0;

/// One for each member, told apart also by those who see few colours (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"];

/// What the demo did and what its members saw, in order, each since it began.
#[derive(Default)]
pub(crate) struct Picture {
    steps: Vec<(Duration, String)>,
    members: Vec<&'static str>,
    /// When a member started, and when its process ended.
    lives: Vec<(&'static str, Duration, Option<Duration>)>,
    /// Member, peer, and from when until when the member had the peer in its roster.
    known: Vec<(&'static str, String, Duration, Option<Duration>)>,
    /// When Postgres was down.
    outage: Option<(Duration, Duration)>,
}

impl Picture {
    pub(crate) fn step(&mut self, at: Duration, text: &str) {
        self.steps.push((at, text.to_owned()));
    }

    pub(crate) fn starts(&mut self, at: Duration, member: &'static str) {
        if !self.members.contains(&member) {
            self.members.push(member);
        }
        self.lives.push((member, at, None));
    }

    /// The member's process is gone, and with it its roster.
    pub(crate) fn ends(&mut self, at: Duration, member: &str) {
        let lives = self.lives.iter_mut().filter(|it| it.0 == member);
        lives.for_each(|it| end(&mut it.2, at));
        let known = self.known.iter_mut().filter(|it| it.0 == member);
        known.for_each(|it| end(&mut it.3, at));
    }

    pub(crate) fn is_down(&mut self, from: Duration, until: Duration) {
        self.outage = Some((from, until));
    }

    /// An event as the demo prints it: `join NAME`, `heal NAME` or `leave NAME: why`. Others change no roster.
    pub(crate) fn event(&mut self, at: Duration, member: &'static str, event: &str) {
        let Some((kind, peer)) = event.split_once(' ') else {
            return;
        };
        let peer = peer.split(':').next().unwrap_or(peer);
        let is_open = |it: &&mut (&str, String, Duration, Option<Duration>)| {
            it.0 == member && it.1 == peer && it.3.is_none()
        };
        let open = self.known.iter_mut().rfind(is_open);
        match (kind, open) {
            ("join" | "heal", None) => self.known.push((member, peer.to_owned(), at, None)),
            ("leave", Some(known)) => end(&mut known.3, at),
            _ => {}
        }
    }

    /// As SVG, until this moment.
    pub(crate) fn draw(&self, end: Duration) -> String {
        let lane = BAR * self.members.len() as f64 + GAP;
        let bottom = TOP + lane * self.members.len() as f64;
        let height = bottom + 24.0 + LINE * self.steps.len() as f64;
        // Until the first step only Postgres was started.
        let begin = self.steps.first().map_or(Duration::ZERO, |it| it.0);
        let scale = (WIDTH - LEFT - RIGHT) / (end - begin).as_secs_f64();
        let x = |at: Duration| LEFT + scale * at.saturating_sub(begin).as_secs_f64();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
             aria-label=\"The roster of each member over time\">\n\
             <style>text{{font:13px system-ui,sans-serif;fill:#24292f}}.end{{text-anchor:end}}\
             .mid{{text-anchor:middle}}.bold{{font-weight:600}}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" fill=\"#ffffff\"/>\n"
        );
        if let Some((from, until)) = self.outage {
            let (from, until) = (x(from), x(until));
            rectangle(&mut svg, from, TOP, until - from, bottom - TOP, "#ffebe9");
            let middle = (from + until) / 2.0;
            text(&mut svg, middle, bottom - 2.0, "mid", "no Postgres");
        }
        for (number, (at, what)) in (1..).zip(&self.steps) {
            let (x, y) = (x(*at), bottom + 12.0 + LINE * f64::from(number));
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#d0d7de\"/>"
            );
            text(&mut svg, x, TOP - 10.0, "mid bold", &number.to_string());
            text(&mut svg, 34.0, y, "end bold", &number.to_string());
            text(&mut svg, 44.0, y, "", what);
        }
        for (index, member) in self.members.iter().enumerate() {
            let top = TOP + 4.0 + lane * index as f64;
            let middle = top + (lane - GAP) / 2.0 + 4.0;
            text(&mut svg, LEFT - 24.0, middle, "end bold", member);
            let colour = COLOURS[index % COLOURS.len()];
            rectangle(&mut svg, LEFT - 18.0, middle - 9.0, 9.0, 9.0, colour);
            let bar = |peer: &str| {
                let place = self.members.iter().position(|it| *it == peer);
                place.map(|place| (top + BAR * place as f64, COLOURS[place % COLOURS.len()]))
            };
            let lives = self.lives.iter().filter(|it| it.0 == *member);
            for (_, from, until) in lives {
                let width = x(until.unwrap_or(end)) - x(*from);
                rectangle(&mut svg, x(*from), top, width, lane - GAP, "#eaeef2");
            }
            for (_, peer, from, until) in self.known.iter().filter(|it| it.0 == *member) {
                let width = x(until.unwrap_or(end)) - x(*from);
                if let Some((y, colour)) = bar(peer) {
                    rectangle(&mut svg, x(*from), y, width, BAR - 1.0, colour);
                }
            }
        }
        svg += "</svg>\n";
        svg
    }
}

fn end(until: &mut Option<Duration>, at: Duration) {
    until.get_or_insert(at);
}

fn rectangle(svg: &mut String, x: f64, y: f64, width: f64, height: f64, colour: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"
    );
}
