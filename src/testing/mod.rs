//! A provider in a box.
