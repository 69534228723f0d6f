//! What lies over a view: the keys, all notices, one session or one refusal.

use ratatui::style::Style;

use super::page::Page;
use crate::base::text::{bytes, duration, or_dash, wrap};
use crate::top::number::bits;
use crate::top::reading::Flow;
use crate::top::refusals::Refusal;
use crate::top::sessions::Session;
use crate::top::state::State;

const HELP: &str = "\
1 to 5, tab      traffic, sessions, refusals, reasons, workers
up, down, j, k   move; page up, page down, home, end as well
enter            one session or refusal in detail; esc goes back
/                show only lines that contain a text; esc shows all
s, r             sort by the next column; reverse the order
a                everything that needs attention
p, blank         stand still, and go on
control-l        draw anew
control-z        back to the shell; fg returns
q, control-c     quit

sessions   TURN allocations; a browser holds several for one call
via        how clients reach this relay: udp, tcp or tls
to peers   media from clients to the media servers, payload only
!          above: calls fail now; *: some fail, or may fail soon
!          before a session: it looks wrong; below the list stands why
refused    the client got no session or no peer
dropped    packets that were not relayed
busy       share of the time that a worker is at work
p99        99 in 100 turns of a worker's loop are shorter; calls notice
           turns from 10 ms on
LAST MIN   in the last minute, or since this program began; new/s covers the same time";

/// Draws the keys and the words.
pub fn help(page: &mut Page<'_>, state: &mut State) {
    scroll(page, state, &HELP.lines().map(str::to_owned).collect::<Vec<_>>());
}

/// Draws all notices.
pub fn notices(page: &mut Page<'_>, state: &mut State) {
    let mut lines: Vec<String> = state
        .failure()
        .into_iter()
        .chain(&state.notices)
        .flat_map(|notice| notice.lines(page.width()))
        .collect();
    if lines.is_empty() {
        lines.push(state.all_is_well.clone());
    }
    scroll(page, state, &lines);
}

/// Draws one session or refusal.
pub fn detail(page: &mut Page<'_>, state: &mut State, id: &str, unix: u64) {
    let session = state.sessions.as_ref().and_then(|sessions| sessions.get(id));
    let refusal = state.refusals.iter().flatten().find(|refusal| refusal.id() == id);
    let lines = match (session, refusal) {
        (Some(session), _) => of_session(session, page.width()),
        (None, Some(refusal)) => of_refusal(refusal, unix, page.width()),
        (None, None) => vec!["it has ended, or the server has forgotten it; esc goes back".to_owned()],
    };
    scroll(page, state, &lines);
}

fn of_session(session: &Session, width: usize) -> Vec<String> {
    let mut lines = vec![
        format!("user       {} of {}", session.user, session.host),
        format!("client     {} over {} to {}", session.client, session.transport, session.server),
        format!("since      {}", duration(session.seconds)),
        format!("to peers   {}", flow(session.bits.map(|bits| bits[0]), session.from_client)),
        format!("to client  {}", flow(session.bits.map(|bits| bits[1]), session.from_peer)),
    ];
    for relayed in &session.relayed {
        lines.push(String::new());
        lines.push(format!("relayed    {}, expires in {}", relayed.address, duration(relayed.expires_in)));
        let mut list = |what: &str, count: u64, addresses: &[String]| {
            let more = if count > addresses.len() as u64 { ", ..." } else { "" };
            let text = format!("{what} {count}: {}{more}", addresses.join(", "));
            let text = if count == 0 { format!("{what} none") } else { text };
            lines.extend(wrap(&text, "  ", width).lines().map(str::to_owned));
        };
        list("permissions:", relayed.permissions, &relayed.peers);
        list("channels:", relayed.channels, &relayed.bound);
    }
    let hints = session.hints.iter().map(|hint| (hint, "! "));
    for (text, mark) in hints.chain(session.notes.iter().map(|note| (note, "  "))) {
        lines.push(String::new());
        lines.extend(wrap(text, "  ", width).replacen("  ", mark, 1).lines().map(str::to_owned));
    }
    lines
}

fn flow(rate: Option<f64>, flow: Flow) -> String {
    let rate = rate.map_or_else(String::new, |rate| format!("{}, ", bits(rate)));
    format!("{rate}{} in {} packets so far", bytes(flow.bytes), flow.packets)
}

fn of_refusal(refusal: &Refusal, unix: u64, width: usize) -> Vec<String> {
    // A password that fits no secret does not say whose user this is.
    let host = if refusal.host.is_empty() { "an unknown host" } else { &refusal.host };
    let code = if refusal.code == 0 { "no answer".to_owned() } else { format!("answered {}", refusal.code) };
    let mut lines = vec![
        format!("user       {} of {}", or_dash(&refusal.user), host),
        format!("client     {} over {}", refusal.client, refusal.transport),
        format!("when       {} ago", duration(unix.saturating_sub(refusal.time))),
        format!("request    {}, {code}", refusal.request),
        format!("reason     {}", refusal.reason),
        String::new(),
    ];
    lines.extend(wrap(&refusal.text, "", width).lines().map(str::to_owned));
    lines.push(String::new());
    lines.extend(wrap(&format!("next step: {}", refusal.next_step), "", width).lines().map(str::to_owned));
    lines
}

/// Draws the lines from the scrolled one on.
fn scroll(page: &mut Page<'_>, state: &mut State, lines: &[String]) {
    page.text("", Style::new());
    state.scrolled = state.scrolled.min(lines.len().saturating_sub(page.left()));
    lines.iter().skip(state.scrolled).for_each(|line| page.text(line, Style::new()));
}
