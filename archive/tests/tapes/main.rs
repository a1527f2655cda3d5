//! Tapes from outside: written, read, damaged, and opened with stock tools.

mod base;
mod catalog;
mod plant;
mod stream;
mod support;
mod update;
mod volumes;
