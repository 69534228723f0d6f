//! ChannelBind (RFC 8656 section 12).

use std::time::Duration;

use super::answer::Ticket;
use crate::base::time::Now;
use crate::turn::action::FromClient;
use crate::turn::error::Code;
use crate::turn::server::Server;
use crate::wire::request::ChannelBind;

/// RFC 8656 section 12.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// RFC 8656 section 12.
const NUMBER_MIN: u16 = 0x4000;
/// The last number of RFC 8656 section 12.
const NUMBER_MAX_STRICT: u16 = 0x4FFF;
/// The last number of RFC 5766 section 11, which clients still draw from.
const NUMBER_MAX: u16 = 0x7FFF;

impl Server {
    /// RFC 8656 section 12.2.
    pub(in crate::turn) fn channel_bind(
        &mut self,
        now: Now,
        ticket: &Ticket,
        request: &ChannelBind,
    ) -> FromClient {
        match self.check_and_bind(now, ticket, request) {
            Ok(()) => self.succeed(ticket, ticket.success()),
            Err(code) => self.refuse(ticket, code),
        }
    }

    fn check_and_bind(&mut self, now: Now, ticket: &Ticket, request: &ChannelBind) -> Result<(), Code> {
        let id = self.owned(ticket)?;
        let (Some(number), Some(peer)) = (request.number, request.peer) else { return Err(Code::BadRequest) };
        let max = if self.settings.strict_channels { NUMBER_MAX_STRICT } else { NUMBER_MAX };
        if !(NUMBER_MIN..=max).contains(&number) {
            return Err(Code::BadRequest);
        }
        // Bound to each other already, or both free.
        let local = self.policy.to_local(peer);
        let relays = self.table.allocation(id).map_or([None; 2], |allocation| allocation.relays);
        for relay in relays.into_iter().flatten() {
            let (bound_peer, bound_number) = self.table.bindings(id, relay, number, local, now.instant);
            if bound_peer.is_some_and(|bound| bound != local)
                || bound_number.is_some_and(|bound| bound != number)
            {
                return Err(Code::BadRequest);
            }
        }
        let permitted = self.judge(now, id, peer)?;
        if !self.may_reach(permitted.peer, permitted.reach) {
            return Err(Code::Forbidden);
        }
        self.check_room(&[permitted])?;
        let known = self.table.bindings(id, permitted.relay, number, permitted.peer, now.instant).0.is_some();
        let max = self.settings.limits.channels_per_allocation as usize;
        if !known
            && (self.table.channel_count(permitted.relay) >= max || !self.has_room_for(permitted.relay, 1))
        {
            return Err(Code::InsufficientCapacity);
        }
        let permission = self.permit(now.instant, permitted);
        let expires = now.instant + LIFETIME;
        if let Some(owner) = self.table.bind(permitted.relay, number, permitted.peer, permission, expires) {
            self.deadlines.push(expires, owner);
        }
        Ok(())
    }
}
