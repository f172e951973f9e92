//! The model on a screen of any size. Draws, and knows which part of what is long is in sight.

use std::collections::VecDeque;

use pg_peers::{Reason, Status};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, Wrap};

use crate::model::{Advice, Cells, Counts, Entry, Kind, Link, Model, Now, State};
use crate::text;

/// Lower than this there is only room for the peers.
const LOW: u16 = 12;

/// Between columns.
const SPACING: u16 = 2;

const KEYS: &str = " q quit   tab peers or events   \u{2191} \u{2193} PgUp PgDn Home End scroll";

/// What the screen says besides the model.
pub(crate) struct Heading<'a> {
    /// The channel, and where it is.
    pub(crate) place: &'a str,
    pub(crate) status: &'a Status,
    /// Whether this program says nothing on the channel.
    pub(crate) silent: bool,
}

/// Colours help, but nothing is said by them alone.
pub(crate) struct Theme {
    colours: bool,
}

/// The two lists, and which of them the keys scroll.
#[derive(Debug, Default)]
pub(crate) struct Panes {
    focus: Focus,
    peers: Pane,
    log: Pane,
}

/// Which part of a list is in sight.
#[derive(Debug, Default)]
struct Pane {
    /// The first line in sight, and what that is at the end of the list.
    first: usize,
    last: usize,
    /// How many lines are.
    page: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Focus {
    #[default]
    Peers,
    Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scroll {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// The columns that are left out first when there is no room come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    State,
    Heard,
    Tags,
    Started,
    Interval,
    Back,
    Backend,
}

impl Theme {
    /// By <https://no-color.org>.
    pub(crate) fn of_environment() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colours: !refused }
    }

    fn style(&self, colour: Color) -> Style {
        match self.colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    fn state(&self, state: State) -> Style {
        match state {
            State::Here => self.style(Color::Green),
            State::Late => self.style(Color::Yellow).add_modifier(Modifier::BOLD),
            State::Gone(reason) => self.departure(reason),
        }
    }

    /// A member that leaves as it should is no reason to look up.
    fn departure(&self, reason: Reason) -> Style {
        match reason {
            Reason::Goodbye | Reason::Replaced => Style::new().add_modifier(Modifier::DIM),
            _ => self.style(Color::Red),
        }
    }

    fn event(&self, kind: Kind) -> Style {
        match kind {
            Kind::Join | Kind::Heal | Kind::Online => self.style(Color::Green),
            Kind::Update => Style::new(),
            Kind::Leave(reason) => self.departure(reason),
            Kind::Offline => self.style(Color::Red),
        }
    }
}

impl Panes {
    pub(crate) fn switch(&mut self) {
        self.focus = match self.focus {
            Focus::Peers => Focus::Log,
            Focus::Log => Focus::Peers,
        };
    }

    pub(crate) fn scroll(&mut self, scroll: Scroll) {
        match self.focus {
            Focus::Peers => self.peers.scroll(scroll),
            Focus::Log => self.log.scroll(scroll),
        }
    }

    fn border(&self, pane: Focus) -> Style {
        match self.focus == pane {
            true => Style::new().add_modifier(Modifier::BOLD),
            false => Style::new().add_modifier(Modifier::DIM),
        }
    }
}

impl Pane {
    fn scroll(&mut self, scroll: Scroll) {
        let first = match scroll {
            Scroll::Up => self.first.saturating_sub(1),
            Scroll::Down => self.first + 1,
            Scroll::PageUp => self.first.saturating_sub(self.page),
            Scroll::PageDown => self.first + self.page,
            Scroll::Home => 0,
            Scroll::End => self.last,
        };
        self.first = first.min(self.last);
    }

    /// Returns the first of `count` lines that is in sight, with room for `page`.
    fn show(&mut self, count: usize, page: usize) -> usize {
        self.last = count.saturating_sub(page);
        self.page = page;
        self.first = self.first.min(self.last);
        self.first
    }

    /// The same for a list that grows at its end: who looks at the newest goes on to.
    fn show_newest(&mut self, count: usize, page: usize) -> usize {
        if self.first == self.last {
            self.first = count;
        }
        self.show(count, page)
    }
}

pub(crate) fn draw(
    frame: &mut Frame<'_>,
    model: &Model,
    now: &Now,
    heading: &Heading<'_>,
    panes: &mut Panes,
    theme: &Theme,
) {
    let area = frame.area();
    let is_low = area.height < LOW;
    let why = notice(model, now, heading.silent, theme);
    // Words that are wrapped can take a line more than their width says.
    let lines = (why.width() as u16).div_ceil(area.width.max(1));
    let why_lines = if lines > 1 { lines + 1 } else { lines }.min(area.height / 4);
    let below = area.height.saturating_sub(2 + why_lines);
    let (peers, log, keys) = match is_low {
        true => (below, 0, 0),
        false => share(below - 1, model),
    };
    let heights = [1, 1, why_lines, peers, log, keys];
    let [title, counts, reason, peers, log, keys] =
        Layout::vertical(heights.map(Constraint::Length)).areas(area);
    draw_title(frame, title, model.link(), now, heading.place, theme);
    let line = counts_line(model.counts(), heading.status, theme);
    frame.render_widget(line, counts);
    frame.render_widget(Paragraph::new(why).wrap(Wrap { trim: true }), reason);
    draw_peers(frame, peers, model, now, panes, theme);
    if !is_low {
        draw_log(frame, log, model.log(), panes, theme);
        frame.render_widget(Line::styled(KEYS, Modifier::DIM), keys);
    }
}

/// The heights of the peers, the log and the keys. The peers take what they need, but leave up to a third to the log, which
/// in turn begins no higher than the middle, so that it does not move with every peer.
fn share(height: u16, model: &Model) -> (u16, u16, u16) {
    let lines = |count, more| {
        u16::try_from(count)
            .unwrap_or(u16::MAX)
            .saturating_add(more)
    };
    let log = lines(model.log().len(), 1).clamp(height / 6, height / 3);
    let peers = lines(model.names().count(), 2).clamp(height / 2, height - log);
    (peers, height - peers, 1)
}

fn draw_title(
    frame: &mut Frame<'_>,
    area: Rect,
    link: &Link,
    now: &Now,
    place: &str,
    theme: &Theme,
) {
    let since = |since| text::span(now.instant.saturating_duration_since(since));
    let (state, style) = match link {
        Link::Connecting => (" connecting ".to_owned(), theme.style(Color::Yellow)),
        Link::Online { since: at } => (
            format!(" online {} ", since(*at)),
            theme.style(Color::Green),
        ),
        Link::Offline { since: at, .. } => {
            (format!(" OFFLINE {} ", since(*at)), theme.style(Color::Red))
        }
    };
    let state = Span::styled(
        state,
        style.add_modifier(Modifier::REVERSED | Modifier::BOLD),
    );
    let [left, right] = Layout::horizontal([
        Constraint::Fill(1),
        Constraint::Length(state.width() as u16),
    ])
    .areas(area);
    let title = Line::from_iter([Span::styled(" pg-peers ", Modifier::BOLD), Span::raw(place)]);
    frame.render_widget(title, left);
    frame.render_widget(state, right);
}

fn counts_line(counts: Counts, status: &Status, theme: &Theme) -> Line<'static> {
    let mut spans = vec![Span::styled(
        format!(" {} here", counts.here),
        Modifier::BOLD,
    )];
    let late = match counts.late {
        0 => Style::new(),
        _ => theme.state(State::Late),
    };
    spans.push(Span::styled(format!("  {} late", counts.late), late));
    spans.push(Span::raw(format!("  {} left lately", counts.departed)));
    if let Some(took) = status.round_trip.filter(|_| status.online) {
        spans.push(Span::raw(format!("   round trip {}", text::span(took))));
    }
    let (heard, ignored) = (status.heard, status.ignored);
    spans.push(Span::raw(format!("   {heard} messages  {ignored} ignored")));
    // Counts that are zero when all is well.
    for (what, count) in [
        ("forged", status.forged),
        ("clock skewed", status.clock_skewed),
        ("refused", status.refused),
    ] {
        if count > 0 {
            let text = format!("  {count} {what}");
            spans.push(Span::styled(text, theme.style(Color::Yellow)));
        }
    }
    Line::from(spans)
}

/// Why there is no link, or what else one should know.
fn notice<'a>(model: &'a Model, now: &Now, silent: bool, theme: &Theme) -> Line<'a> {
    if let Link::Offline { why, .. } = model.link() {
        return Line::styled(&**why, theme.style(Color::Red));
    }
    let advice = model.advice(now, silent).map(advice_words);
    advice.map_or_else(Line::default, |words| {
        Line::styled(words, theme.style(Color::Yellow))
    })
}

pub(crate) fn advice_words(advice: Advice) -> &'static str {
    match advice {
        Advice::NobodyIsHere => {
            "nobody is on this channel: run pg-peers channels to see where somebody is, and name it with --channel"
        }
        Advice::BareNamesAreHere => {
            "some peers announce only a bare name, as Elixir nodes do, and take this program's question for one: use --bare-name"
        }
    }
}

fn draw_peers(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    now: &Now,
    panes: &mut Panes,
    theme: &Theme,
) {
    let rows = model.rows(now);
    let count = rows.len();
    // Below the border and the names of the columns.
    let height = usize::from(area.height.saturating_sub(2));
    let first = panes.peers.show(count, height);
    let title = position("peers", first, height, count);
    let longest = model.names().map(|name| Span::raw(name).width()).max();
    let (name_width, columns) = columns(area.width, longest.unwrap_or(0) as u16);
    let widths = [Constraint::Length(name_width)].into_iter();
    let widths = widths.chain(columns.iter().map(|column| column.width()));
    let head = [Text::raw("NAME")].into_iter();
    let head = head.chain(columns.iter().map(|column| column.title()));
    let rows = rows.skip(first).take(height);
    let table = Table::new(rows.map(|cells| row(&cells, &columns, theme)), widths)
        .header(Row::new(head).style(Modifier::UNDERLINED))
        .column_spacing(SPACING)
        .block(pane(title, panes.border(Focus::Peers)));
    frame.render_widget(table, area);
}

fn row<'a>(cells: &Cells<'a>, columns: &[Column], theme: &Theme) -> Row<'a> {
    let style = match cells.state {
        State::Here | State::Late => Style::new(),
        State::Gone(_) => Style::new().add_modifier(Modifier::DIM),
    };
    let name = [Cell::new(text::of_certain_width(cells.name))].into_iter();
    let others = columns.iter().map(|column| match column {
        Column::State => {
            Cell::new(state_word(cells.state, cells.bare)).style(theme.state(cells.state))
        }
        Column::Heard => Cell::new(Text::from(cells.heard.clone()).right_aligned()),
        Column::Tags => Cell::new(text::of_certain_width(cells.tags)),
        Column::Started => Cell::new(cells.started.clone()),
        Column::Interval => Cell::new(Text::from(cells.interval.clone()).right_aligned()),
        Column::Back => Cell::new(Text::from(cells.back.clone()).right_aligned()),
        Column::Backend => Cell::new(cells.backend.clone()),
    });
    Row::new(name.chain(others)).style(style)
}

fn state_word(state: State, bare: bool) -> &'static str {
    match state {
        State::Here if bare => "here, bare",
        State::Late if bare => "late, bare",
        State::Here => "here",
        State::Late => "late",
        State::Gone(Reason::Goodbye) => "left",
        State::Gone(Reason::Expired) => "expired",
        State::Gone(Reason::SessionGone) => "session gone",
        State::Gone(Reason::Replaced) => "replaced",
        State::Gone(_) => "gone",
    }
}

/// How wide names are, and what else there is room for.
fn columns(width: u16, longest_name: u16) -> (u16, Vec<Column>) {
    // Names are what one looks for, but not all of a long one must be seen, and the state comes next.
    let others = Column::State.least() + SPACING;
    let most = (width / 2).min(width.saturating_sub(others)).clamp(4, 40);
    let mut name = longest_name.clamp(4, most);
    let mut columns = Vec::new();
    let mut left = width.saturating_sub(name);
    for column in Column::ALL {
        let needs = column.least() + SPACING;
        if needs > left {
            break;
        }
        left -= needs;
        columns.push(column);
    }
    // What remains is for the tags, or for what a name was cut by.
    if !columns.contains(&Column::Tags) {
        name = longest_name.clamp(4, name.max(4) + left);
    }
    columns.sort_by_key(|column| column.place());
    (name, columns)
}

impl Column {
    const ALL: [Self; 7] = [
        Self::State,
        Self::Heard,
        Self::Tags,
        Self::Started,
        Self::Interval,
        Self::Back,
        Self::Backend,
    ];

    /// From left to right: tags last, since they are of any length.
    fn place(self) -> u8 {
        match self {
            Self::State => 0,
            Self::Heard => 1,
            Self::Interval => 2,
            Self::Back => 3,
            Self::Started => 4,
            Self::Backend => 5,
            Self::Tags => 6,
        }
    }

    fn title(self) -> Text<'static> {
        match self {
            Self::State => Text::raw("STATE"),
            Self::Heard => Text::raw("HEARD").right_aligned(),
            Self::Interval => Text::raw("EVERY").right_aligned(),
            Self::Back => Text::raw("BACK").right_aligned(),
            Self::Started => Text::raw("STARTED"),
            Self::Backend => Text::raw("BACKEND"),
            Self::Tags => Text::raw("TAGS"),
        }
    }

    /// The width of its longest text, or what is worth a look of one of any length.
    fn least(self) -> u16 {
        match self {
            Self::State | Self::Started => 12,
            Self::Heard | Self::Interval | Self::Back => 6,
            Self::Backend => 7,
            Self::Tags => 10,
        }
    }

    fn width(self) -> Constraint {
        match self {
            Self::Tags => Constraint::Fill(1),
            _ => Constraint::Length(self.least()),
        }
    }
}

fn draw_log(
    frame: &mut Frame<'_>,
    area: Rect,
    log: &VecDeque<Entry>,
    panes: &mut Panes,
    theme: &Theme,
) {
    let height = usize::from(area.height.saturating_sub(1));
    let first = panes.log.show_newest(log.len(), height);
    let title = position("events", first, height, log.len());
    let lines = log.iter().skip(first).take(height).map(|entry| {
        Line::from_iter([
            Span::styled(format!("{}  ", entry.time), Modifier::DIM),
            Span::styled(
                format!("{:<8}", event_word(entry.kind)),
                theme.event(entry.kind),
            ),
            Span::raw(text::of_certain_width(&entry.text)),
        ])
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let block = pane(title, panes.border(Focus::Log));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn event_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Join => "join",
        Kind::Heal => "heal",
        Kind::Update => "update",
        Kind::Leave(_) => "leave",
        Kind::Online => "online",
        Kind::Offline => "offline",
    }
}

/// What a list is called, and which part of it is in sight, if not all is.
fn position(what: &str, first: usize, height: usize, count: usize) -> String {
    if count <= height {
        return format!(" {what} ");
    }
    let last = (first + height).min(count);
    format!(" {what} {}-{last} of {count} ", first + 1)
}

fn pane(title: String, style: Style) -> Block<'static> {
    Block::new()
        .borders(Borders::TOP)
        .border_style(style)
        .title(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_state_are_seen_where_there_is_room() {
        for width in 18..200 {
            let (name, columns) = columns(width, 63);
            assert!(columns.contains(&Column::State), "{width}");
            let others = columns.iter().map(|column| column.least() + SPACING);
            let taken = name + others.sum::<u16>();
            assert!(
                (4..=63).contains(&name) && taken <= width,
                "{width}: {taken}"
            );
        }
        assert_eq!(columns(10, 63), (10, Vec::new()));
        assert_eq!(columns(120, 22).1.len(), Column::ALL.len());
    }

    #[test]
    fn a_list_scrolls_no_further_than_it_goes() {
        let mut pane = Pane::default();
        assert_eq!(pane.show(30, 10), 0);
        for (scroll, first) in [
            (Scroll::Up, 0),
            (Scroll::PageDown, 10),
            (Scroll::Down, 11),
            (Scroll::End, 20),
            (Scroll::Down, 20),
            (Scroll::PageUp, 10),
            (Scroll::Home, 0),
            (Scroll::End, 20),
        ] {
            pane.scroll(scroll);
            assert_eq!(pane.show(30, 10), first, "{scroll:?}");
        }
        assert_eq!(pane.show(25, 10), 15);
        assert_eq!(pane.show(5, 10), 0);
    }

    #[test]
    fn the_newest_stays_in_sight_unless_somebody_looks_back() {
        let mut pane = Pane::default();
        assert_eq!(pane.show_newest(5, 10), 0);
        assert_eq!(pane.show_newest(30, 10), 20);
        assert_eq!(pane.show_newest(31, 8), 23);
        pane.scroll(Scroll::Up);
        assert_eq!(pane.show_newest(32, 8), 22);
        assert_eq!(pane.show_newest(33, 8), 22);
        pane.scroll(Scroll::End);
        assert_eq!(pane.show_newest(34, 8), 26);
    }
}
