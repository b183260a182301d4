//! What an event is handled with: the time, chance, the checker, and where wishes to the world go.

use crate::checker::Checker;
use crate::message::{Conn, Message, Node, Out};
use crate::random::Random;
use crate::settings::{Mutation, Plan};

pub(crate) struct Context {
    /// Milliseconds of virtual time.
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) checker: Checker,
    pub(crate) plan: Plan,
    pub(crate) mutation: Option<Mutation>,
    /// Wishes of the event that is being handled, with who has them.
    pub(crate) out: Vec<(Node, Out)>,
    numbers: u64,
}

impl Context {
    pub(crate) fn new(random: Random, plan: Plan, mutation: Option<Mutation>) -> Self {
        Self {
            now: 0,
            random,
            checker: Checker::default(),
            plan,
            mutation,
            out: Vec::new(),
            numbers: 0,
        }
    }

    /// A number that was not given before: connections, incarnations, values.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn send(&mut self, from: Node, conn: Conn, to: Node, message: Message) {
        self.out.push((from, Out::Send(conn, to, message)));
    }

    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}
