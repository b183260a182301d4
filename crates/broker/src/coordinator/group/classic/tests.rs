//! Rules of the classic protocol, state by state.
