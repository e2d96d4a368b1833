//! Starts real members, hurts them, and judges what clients saw.

mod pb;

fn main() {}
