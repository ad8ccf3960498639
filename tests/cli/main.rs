//! The command line, typed into the real binary: what it prints, where, and how it exits; with a real server the dialogue
//! that the first users were promised.

mod alone;
mod harness;
mod served;
