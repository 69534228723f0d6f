//! Refresh (RFC 8656 section 8).

use super::answer::Ticket;
use crate::base::time::Instant;
use crate::turn::action::{EndReason, FromClient, RelayId};
use crate::turn::error::Code;
use crate::turn::server::Server;
use crate::wire::request::Refresh;

impl Server {
    /// RFC 8656 section 8.2. Zero deletes at once; the client's next Refresh finds nothing.
    pub(in crate::turn) fn refresh(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        request: &Refresh,
    ) -> FromClient {
        match self.check_and_refresh(now, ticket, request) {
            Ok(lifetime) => self.succeed(ticket, ticket.success().lifetime(lifetime)),
            Err(code) => self.refuse(ticket, code),
        }
    }

    fn check_and_refresh(&mut self, now: Instant, ticket: &Ticket, request: &Refresh) -> Result<u32, Code> {
        let id = self.owned(ticket)?;
        let relays = self.table.allocation(id).ok_or(Code::AllocationMismatch)?.relays;
        let chosen: Vec<RelayId> = match request.family {
            None => relays.into_iter().flatten().collect(),
            Some(family) => {
                let relay = family.ok().and_then(|family| relays[family as usize]);
                vec![relay.ok_or(Code::PeerAddressFamilyMismatch)?]
            }
        };
        if request.lifetime == Some(0) {
            // The answer goes out before the session's end is reported, on the way back that still exists.
            for relay in chosen {
                self.end_relay(now, relay, EndReason::Deleted);
            }
            return Ok(0);
        }
        let lifetime = self.lifetime(request.lifetime);
        for relay in chosen {
            if let Some(owner) = self.table.refresh_relay(relay, now + lifetime) {
                self.deadlines.push(now + lifetime, owner);
            }
        }
        Ok(lifetime.as_secs() as u32)
    }
}
