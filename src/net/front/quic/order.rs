//! A queue of slot numbers with removal from anywhere in constant time.

/// A doubly linked list of slot numbers. Each slot is in it at most once.
#[derive(Debug, Default)]
pub struct Order {
    links: Vec<Link>,
    first: Option<u32>,
    last: Option<u32>,
    len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    before: Option<u32>,
    after: Option<u32>,
}

impl Order {
    /// Returns the number of slots in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the slot that was appended first.
    pub fn first(&self) -> Option<u32> {
        self.first
    }

    /// Appends a slot; it must not be in the list.
    pub fn push(&mut self, slot: u32) {
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, Link::default());
        }
        self.links[slot as usize] = Link { before: self.last, after: None };
        match self.last {
            Some(last) => self.links[last as usize].after = Some(slot),
            None => self.first = Some(slot),
        }
        self.last = Some(slot);
        self.len += 1;
    }

    /// Removes a slot; it must be in the list.
    pub fn remove(&mut self, slot: u32) {
        let Link { before, after } = self.links[slot as usize];
        match before {
            Some(before) => self.links[before as usize].after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => self.links[after as usize].before = before,
            None => self.last = before,
        }
        self.len -= 1;
    }

    /// Moves a slot to the end; it must be in the list.
    pub fn renew(&mut self, slot: u32) {
        if self.last != Some(slot) {
            self.remove(slot);
            self.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Removes all slots, from the first on.
    fn drained(mut order: Order) -> Vec<u32> {
        let slots = std::iter::from_fn(|| order.first().inspect(|&slot| order.remove(slot))).collect();
        assert_eq!((order.len(), order.last), (0, None));
        slots
    }

    #[test]
    fn slots_leave_from_anywhere_and_keep_their_order() {
        let filled = || {
            let mut order = Order::default();
            [5, 0, 3, 9].into_iter().for_each(|slot| order.push(slot));
            order
        };
        assert_eq!(drained(filled()), [5, 0, 3, 9]);
        for (gone, rest) in [(5, [0, 3, 9]), (0, [5, 3, 9]), (3, [5, 0, 9]), (9, [5, 0, 3])] {
            let mut order = filled();
            order.renew(gone);
            assert_eq!(order.len(), 4);
            assert_eq!(drained(order), [rest[0], rest[1], rest[2], gone]);
            let mut order = filled();
            order.remove(gone);
            order.push(gone);
            order.remove(gone);
            assert_eq!(drained(order), rest);
        }
    }
}
