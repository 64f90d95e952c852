//! Tests against real servers: one binary, so that they share what takes long to start.

mod alerts;
mod api;
mod architecture;
mod backends;
mod cli;
mod crash;
mod drift;
mod gateway;
mod ground;
mod guard;
mod instances;
mod large;
mod learned;
mod merge;
mod metrics;
mod model;
mod names;
mod overrides;
mod puppetdb;
mod references;
mod schedule;
mod servers;
mod sources;
mod support;
mod swap;
mod writers;
