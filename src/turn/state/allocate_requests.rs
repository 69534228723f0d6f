//! The Allocate request of each allocation: which sockets it waits for, and the parts of its answer that the table lacks.
//!
//! Once the client knows its relayed address, this is only needed to answer a retransmission. So it is kept apart from the
//! table that every packet is looked up in.

use std::time::Duration;

use super::port_pool::{Token, Want};
use super::quota::Place;
use crate::base::family::Family;
use crate::turn::address::OnWire;
use crate::turn::id::AllocationId;
use crate::turn::identity::refusal::Reason;
use crate::turn::ticket::Ticket;

/// An Allocate whose sockets are being opened.
#[derive(Debug)]
pub struct Opening {
    /// The request to answer.
    pub ticket: Ticket,
    /// The lifetime granted.
    pub lifetime: Duration,
    /// Which kind of port the client asks for.
    pub want: Want,
    /// Relays whose sockets are neither open nor refused yet.
    pub waiting: usize,
    /// Ports that another program holds. They stay claimed until all sockets are open or refused, so that none is tried twice.
    pub held: Vec<OnWire>,
    /// Whether another port may replace one that is in use: not if the client redeems a reservation.
    pub exchangeable: bool,
    /// The user's place in the quota for the port that will be reserved.
    pub reserved: Option<Place>,
    /// Why the last socket could not be opened.
    pub failed: Option<Reason>,
}

impl Opening {
    /// The ports claimed for this request in addition to those of its `relays`.
    pub fn claimed_beside(&self, relays: &[OnWire]) -> Vec<OnWire> {
        let pairs = if self.want == Want::Pair { relays } else { &[] };
        let next = pairs.iter().map(|local| local.next_port());
        self.held.iter().copied().chain(next).collect()
    }
}

/// The Allocate request of one allocation.
#[derive(Debug)]
pub struct AllocateRequest {
    /// Its transaction, which identifies a retransmission.
    pub transaction_id: [u8; 12],
    /// RESERVATION-TOKEN of the answer.
    pub token: Option<Token>,
    /// ADDRESS-ERROR-CODE of the answer.
    pub address_error: Option<(Family, u16)>,
    /// Present until every socket is open or refused.
    pub opening: Option<Box<Opening>>,
}

/// The Allocate requests of all allocations of one worker, by their numbers, which the table gives out again.
#[derive(Debug, Default)]
pub struct AllocateRequests {
    by_allocation: Vec<Option<AllocateRequest>>,
    /// How many there are.
    len: usize,
}

impl AllocateRequests {
    /// Adds the request of a new allocation.
    pub fn insert(&mut self, id: AllocationId, request: AllocateRequest) {
        let index = id.0 as usize;
        if index >= self.by_allocation.len() {
            self.by_allocation.resize_with(index + 1, || None);
        }
        let before = self.by_allocation[index].replace(request);
        self.len += usize::from(before.is_none());
    }

    /// The request of an allocation.
    pub fn get(&self, id: AllocationId) -> Option<&AllocateRequest> {
        self.by_allocation.get(id.0 as usize)?.as_ref()
    }

    /// Mutable access to the request of an allocation.
    pub fn get_mut(&mut self, id: AllocationId) -> Option<&mut AllocateRequest> {
        self.by_allocation.get_mut(id.0 as usize)?.as_mut()
    }

    /// Removes the request of an allocation that ends. Returns memory to the allocator once none is left.
    pub fn remove(&mut self, id: AllocationId) -> Option<AllocateRequest> {
        let request = self.by_allocation.get_mut(id.0 as usize)?.take()?;
        self.len -= 1;
        if self.len == 0 {
            self.by_allocation = Vec::new();
        }
        Some(request)
    }
}
