//! Tests against real servers: one binary, so that they share what takes long to start.

mod alerts;
mod api;
mod architecture;
mod cli;
mod crash;
mod drift;
mod ground;
mod guard;
mod instances;
mod large;
mod merge;
mod metrics;
mod model;
mod names;
mod puppetdb;
mod schedule;
mod sources;
mod support;
mod swap;
mod writers;
