//! The view on a terminal: what happens, what is typed and what the system asks for go to the model and the screen.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Zoned;
use pg_peers::crossbeam_channel::{Receiver, after, bounded, never, select};
use pg_peers::{Cluster, PeerInfo};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{
    self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::connection::Failure;
use crate::model::{Model, Now, Seen};
use crate::news::News;
use crate::screen::{self, Heading, Panes, Scroll, Theme};

/// How often it is asked who was heard when, and times that pass are drawn anew.
const LOOK: Duration = Duration::from_millis(500);

/// The most events that are taken up before they are drawn.
const BATCH: usize = 1_000;

/// Why the view ends.
enum End {
    /// Somebody typed that.
    Quit,
    Signal(i32),
}

struct View<'a> {
    cluster: &'a Cluster,
    place: &'a str,
    silent: bool,
    model: Model,
    panes: Panes,
    theme: Theme,
}

/// Shows the cluster until somebody quits. Whatever ends it, the terminal is as it was before.
pub(crate) fn show(cluster: &Cluster, place: &str, silent: bool) -> Result<(), Failure> {
    let signals = signals()?;
    let mut view = View {
        cluster,
        place,
        silent,
        model: Model::new(&Now::read()),
        panes: Panes::default(),
        theme: Theme::of_environment(),
    };
    // Also restores it before a panic is printed.
    let mut terminal = ratatui::try_init()?;
    let end = view.run(&mut terminal, &signals);
    // Shows the cursor again.
    drop(terminal);
    ratatui::try_restore()?;
    match end? {
        End::Quit => Ok(()),
        // As if it had not been caught, so that the parent process sees what ended it.
        End::Signal(signal) => Ok(emulate_default_handler(signal)?),
    }
}

impl View<'_> {
    fn run(
        &mut self,
        terminal: &mut DefaultTerminal,
        signals: &Receiver<i32>,
    ) -> Result<End, Failure> {
        let inputs = inputs();
        let mut infos = self.cluster.peer_infos();
        let mut look = never();
        loop {
            self.draw(terminal)?;
            select! {
                recv(self.cluster.events()) -> event => {
                    let now = Now::read();
                    let more = self.cluster.events().try_iter().take(BATCH);
                    for event in [event?].into_iter().chain(more) {
                        if let Some(news) = News::of(&event) {
                            self.model.hear(&now, news);
                        }
                    }
                }
                recv(inputs) -> input => {
                    if self.is_quit_by(&input??) {
                        return Ok(End::Quit);
                    }
                }
                recv(signals) -> signal => return Ok(End::Signal(signal?)),
                recv(infos) -> seen => {
                    self.see(&seen?);
                    infos = never();
                    look = after(LOOK);
                }
                recv(look) -> _ => {
                    infos = self.cluster.peer_infos();
                    look = never();
                }
                // What is shown of time goes on while the thread of the cluster waits for a server.
                default(LOOK) => {}
            }
        }
    }

    fn see(&mut self, infos: &[PeerInfo]) {
        self.model.see(&Now::read(), infos.iter().map(Seen::of));
    }

    fn draw(&mut self, terminal: &mut DefaultTerminal) -> io::Result<()> {
        let now = Now::read();
        let status = self.cluster.status();
        if let Some(reason) = &status.last_error {
            self.model.still_offline(&reason.to_string());
        }
        self.model.tidy(&now);
        let heading = Heading {
            place: self.place,
            status: &status,
            silent: self.silent,
        };
        let (model, panes, theme) = (&self.model, &mut self.panes, &self.theme);
        terminal.draw(|frame| screen::draw(frame, model, &now, &heading, panes, theme))?;
        Ok(())
    }

    /// A change of the size is an input, too, of which only the screen must know.
    fn is_quit_by(&mut self, input: &Input) -> bool {
        let Input::Key(KeyEvent {
            code,
            modifiers,
            kind: KeyEventKind::Press | KeyEventKind::Repeat,
            ..
        }) = input
        else {
            return false;
        };
        match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Char('q') => return true,
            KeyCode::Tab | KeyCode::BackTab => self.panes.switch(),
            KeyCode::Up | KeyCode::Char('k') => self.panes.scroll(Scroll::Up),
            KeyCode::Down | KeyCode::Char('j') => self.panes.scroll(Scroll::Down),
            KeyCode::PageUp => self.panes.scroll(Scroll::PageUp),
            KeyCode::PageDown | KeyCode::Char(' ') => self.panes.scroll(Scroll::PageDown),
            KeyCode::Home | KeyCode::Char('g') => self.panes.scroll(Scroll::Home),
            KeyCode::End | KeyCode::Char('G') => self.panes.scroll(Scroll::End),
            _ => {}
        }
        false
    }
}

impl Now {
    fn read() -> Self {
        Self {
            instant: Instant::now(),
            wall: Zoned::now(),
        }
    }
}

/// What would end the program. With the terminal in raw mode Ctrl-C is a key, not one of them.
pub(crate) fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let (sender, receiver) = bounded(1);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if sender.send(signal).is_err() {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

/// Keys, and changes of the size.
fn inputs() -> Receiver<io::Result<Input>> {
    let (sender, receiver) = bounded(0);
    thread::spawn(move || {
        loop {
            let input = event::read();
            let failed = input.is_err();
            if sender.send(input).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
