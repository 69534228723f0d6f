//! The Allocate request of each allocation: which sockets it waits for, and the parts of its answer that the table lacks.
//!
//! Once the client knows its relayed address, this is only needed to answer a retransmission. So it is kept apart from the
//! table that every packet is looked up in.

use std::collections::HashMap;
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

/// The Allocate requests of all allocations of one worker.
#[derive(Debug, Default)]
pub struct AllocateRequests {
    by_allocation: HashMap<AllocationId, AllocateRequest>,
}

impl AllocateRequests {
    /// Adds the request of a new allocation.
    pub fn insert(&mut self, id: AllocationId, request: AllocateRequest) {
        self.by_allocation.insert(id, request);
    }

    /// The request of an allocation.
    pub fn get(&self, id: AllocationId) -> Option<&AllocateRequest> {
        self.by_allocation.get(&id)
    }

    /// Mutable access to the request of an allocation.
    pub fn get_mut(&mut self, id: AllocationId) -> Option<&mut AllocateRequest> {
        self.by_allocation.get_mut(&id)
    }

    /// Removes the request of an allocation that ends. Returns memory to the allocator once none is left.
    pub fn remove(&mut self, id: AllocationId) -> Option<AllocateRequest> {
        let request = self.by_allocation.remove(&id);
        if self.by_allocation.is_empty() {
            self.by_allocation.shrink_to_fit();
        }
        request
    }
}
