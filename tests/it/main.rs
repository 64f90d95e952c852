//! Tests against real servers: one binary, so that they share what takes long to start.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod alerts;
mod api;
mod api_access;
mod api_tls;
mod backends;
mod certificates;
mod cli;
mod clients;
mod connections;
mod consul;
mod control;
mod crash;
mod documented;
mod drift;
mod etcd;
mod examples;
mod faults;
mod fuzz;
mod gateway;
mod ground;
mod guard;
mod images;
mod instances;
mod large;
mod learned;
mod library;
mod managed;
mod members;
mod merge;
mod metrics;
mod model;
mod names;
mod openapi;
mod outage;
mod overrides;
mod ownership;
mod puppet;
mod puppetdb;
mod references;
mod registrations;
mod render;
mod rows;
mod schedule;
mod seeds;
mod server_model;
mod servers;
mod sources;
mod supervise;
mod support;
mod swap;
mod two_daemons;
mod writers;
mod zookeeper;
