//! Which VMs a proxy has, which of them polls for all, and what each has applied.
//!
//! The roster is one value that all VMs of a proxy share. Each notes there that it is alive; the one
//! that leads keeps what they share up to date. A VM that serves no requests is the better one: Envoy's
//! main thread has one, and nothing waits for it.

use latchkey_protocol::Revision;

/// The VMs of a proxy that were alive lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The VM that leads; 0 is none.
    leader: u32,
    /// How often the leader has changed.
    term: u32,
    members: Vec<Member>,
}

/// A VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number, drawn at random; not 0.
    pub vm: u32,
    /// Number of the queue by which it is woken.
    pub queue: u32,
    /// Whether it serves requests, so that another is the better leader.
    pub serves: bool,
    /// What it has applied; absent, nothing yet.
    pub applied: Option<Revision>,
    /// When it was last heard of, in milliseconds of the clock that never steps.
    pub seen_at_ms: u64,
}

impl Roster {
    /// Returns the roster that some bytes are; one that is not readable is as good as none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let Some((&[l0, l1, l2, l3, t0, t1, t2, t3], rest)) = bytes.split_first_chunk() else {
            return Self::default();
        };
        let (members, _) = rest.as_chunks();
        Self {
            leader: u32::from_le_bytes([l0, l1, l2, l3]),
            term: u32::from_le_bytes([t0, t1, t2, t3]),
            members: members.iter().map(Member::parse).collect(),
        }
    }

    /// Returns its bytes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = self.leader.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.term.to_le_bytes());
        for member in &self.members {
            bytes.extend_from_slice(&member.write());
        }
        bytes
    }

    /// Returns the members.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the number of the term, if a VM leads. One that has lost the lead and has it again has it
    /// in another term.
    #[must_use]
    pub fn term_of(&self, vm: u32) -> Option<u32> {
        (self.leader == vm).then_some(self.term)
    }

    /// Returns the VM that leads, if it is there.
    #[must_use]
    pub fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.vm == self.leader)
    }

    /// Returns what all members have applied: what is in use, or what one still has that is behind; none
    /// if one has nothing yet.
    #[must_use]
    pub fn applied(&self, in_use: Option<Revision>) -> Option<Revision> {
        let behind = self.members.iter().filter(|member| member.applied != in_use);
        let behind: Option<Vec<Revision>> = behind.map(|member| member.applied).collect();
        behind?.into_iter().min_by_key(|revision| revision.number).or(in_use)
    }

    /// Takes in what a VM says of itself, drops those that were not heard of for long, and lets it lead
    /// if nobody does, or only one that serves requests while it does not. Returns whether there is
    /// something to write.
    ///
    /// While all is as it was, a VM writes only now and then.
    pub fn report(&mut self, me: Member) -> bool {
        let now_ms = me.seen_at_ms;
        let is_gone = |member: &Member| now_ms >= member.seen_at_ms.saturating_add(GONE_AFTER_MS);
        let before = self.members.len();
        self.members.retain(|member| member.vm == me.vm || !is_gone(member));
        let mut is_changed = self.members.len() != before;
        match self.members.iter_mut().find(|member| member.vm == me.vm) {
            Some(known) => {
                let is_due = now_ms >= known.seen_at_ms.saturating_add(REPORT_EVERY_MS);
                let same = Member { seen_at_ms: known.seen_at_ms, ..me };
                is_changed |= is_due || *known != same;
                *known = me;
            }
            None => {
                self.members.push(me);
                is_changed = true;
            }
        }
        let leads = match self.leader() {
            None => true,
            Some(leader) => leader.serves && !me.serves,
        };
        if leads && self.leader != me.vm {
            self.leader = me.vm;
            self.term = self.term.wrapping_add(1);
            is_changed = true;
        }
        is_changed
    }
}

impl Member {
    fn parse(bytes: &[u8; MEMBER_BYTES]) -> Self {
        let [v0, v1, v2, v3, q0, q1, q2, q3, flags, rest @ ..] = *bytes;
        let (numbers, _) = rest.as_chunks();
        let number = |index: usize| numbers.get(index).copied().map_or(0, u64::from_le_bytes);
        let applied = Revision { number: number(1), mark: number(2) };
        Self {
            vm: u32::from_le_bytes([v0, v1, v2, v3]),
            queue: u32::from_le_bytes([q0, q1, q2, q3]),
            serves: flags & SERVES != 0,
            applied: (flags & APPLIED != 0).then_some(applied),
            seen_at_ms: number(0),
        }
    }

    fn write(&self) -> Vec<u8> {
        let applied = self.applied.unwrap_or(Revision { number: 0, mark: 0 });
        let serves = if self.serves { SERVES } else { 0 };
        let has_applied = if self.applied.is_some() { APPLIED } else { 0 };
        let mut bytes = Vec::with_capacity(MEMBER_BYTES);
        bytes.extend_from_slice(&self.vm.to_le_bytes());
        bytes.extend_from_slice(&self.queue.to_le_bytes());
        bytes.push(serves | has_applied);
        for number in [self.seen_at_ms, applied.number, applied.mark] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }
}

const SERVES: u8 = 1;
const APPLIED: u8 = 2;

/// Two numbers of four bytes, flags, and three numbers of eight.
const MEMBER_BYTES: usize = 33;

/// How often a VM says that it is alive, in milliseconds.
const REPORT_EVERY_MS: u64 = 200;

/// When a VM counts as gone that is not heard of, in milliseconds: a thread that is busy for
/// less keeps its place, and a VM that leads and failed is replaced soon.
const GONE_AFTER_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn member(vm: u32, seen_at_ms: u64) -> Member {
        Member { vm, queue: vm + 100, serves: false, applied: None, seen_at_ms }
    }

    #[test]
    fn roster_comes_back() {
        let mut roster = Roster::default();
        let applied = Some(Revision { number: 7, mark: u64::MAX });
        assert!(roster.report(Member { serves: true, applied, ..member(1, 5) }));
        assert!(roster.report(member(2, 6)));
        assert_eq!(Roster::parse(&roster.write()), roster);
        for bytes in [&[][..], &[1], &[1, 0, 0, 0], &[1; 9]] {
            assert!(Roster::parse(bytes).members().is_empty(), "{bytes:?}");
        }
    }

    #[test]
    fn first_one_leads_until_it_serves_requests() {
        let mut roster = Roster::default();
        roster.report(member(1, 0));
        roster.report(member(2, 0));
        assert!(roster.term_of(1).is_some());
        roster.report(Member { serves: true, ..member(1, 10) });
        assert!(roster.term_of(1).is_some(), "nobody has taken over yet");
        roster.report(Member { serves: true, ..member(3, 10) });
        assert!(roster.term_of(1).is_some());
        roster.report(member(2, 10));
        assert!(roster.term_of(2).is_some());
    }

    #[test]
    fn one_that_is_gone_leads_no_longer() {
        let mut roster = Roster::default();
        roster.report(member(1, 0));
        roster.report(member(2, 0));
        assert!(roster.report(member(2, GONE_AFTER_MS)));
        assert!(roster.term_of(2).is_some());
        assert_eq!(roster.members().len(), 1);
    }

    #[test]
    fn little_is_written_while_all_is_as_it_was() {
        let mut roster = Roster::default();
        assert!(roster.report(member(1, 0)));
        assert!(!roster.report(member(1, REPORT_EVERY_MS - 1)));
        let later = Roster { leader: 1, term: 1, members: vec![member(1, 0)] };
        let mut later = Roster::parse(&later.write());
        assert!(later.report(member(1, REPORT_EVERY_MS)));
        let applied = Some(Revision { number: 1, mark: 1 });
        assert!(roster.report(Member { applied, ..member(1, 1) }));
    }

    #[test]
    fn lead_that_was_lost_is_another_when_it_is_back() {
        let mut roster = Roster::default();
        roster.report(member(1, 0));
        let first = roster.term_of(1);
        roster.report(Member { serves: true, ..member(2, GONE_AFTER_MS) });
        assert_eq!(roster.term_of(1), None);
        roster.report(member(1, GONE_AFTER_MS));
        assert!(first.is_some() && roster.term_of(1) > first);
    }

    #[test]
    fn applied_is_what_all_have() {
        let mut roster = Roster::default();
        let revision = |number, mark| Some(Revision { number, mark });
        let in_use = revision(7, 1);
        roster.report(Member { applied: in_use, ..member(1, 0) });
        assert_eq!(roster.applied(in_use), in_use);
        roster.report(Member { applied: revision(5, 1), ..member(2, 0) });
        assert_eq!(roster.applied(in_use), revision(5, 1));
        // Of another history: its number says nothing.
        roster.report(Member { applied: revision(57, 9), ..member(2, 0) });
        assert_eq!(roster.applied(in_use), revision(57, 9));
        roster.report(member(3, 0));
        assert_eq!(roster.applied(in_use), None);
    }
}
