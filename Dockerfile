# Three images: `--target mapsmith` (also the default), `--target haproxy` with the gateway's configuration, and
# `--target mocks` with the stand-ins for the demo. docker-compose.yml puts them together.
#
# The binaries in them have no debug information: `docker build --target debug --output FOLDER .` gives it, of the same build.
#
# Where rust images can't be had, have scripts/dist put binaries into target/dist/ (on Debian 12, or with an older glibc) and build
# with `--build-arg BINARIES=ready`. That choice between stages needs BuildKit, the builder of every current Docker.
ARG BINARIES=build

FROM rust:1-bookworm AS build
# etcd's messages are generated from its protocol's files.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends protobuf-compiler libprotobuf-dev \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /src
COPY . .
RUN scripts/dist && mv target/dist /binaries

FROM scratch AS ready
COPY --chmod=755 target/dist/ /binaries/

FROM ${BINARIES} AS binaries

FROM scratch AS debug
COPY --from=binaries /binaries/debug/ /

# What the images share. The ids are fixed because HAProxy and Mapsmith meet on shared volumes: the group `gateway` may
# use the runtime API's socket, which HAProxy makes; the maps are Mapsmith's to write and HAProxy's only to read.
FROM debian:bookworm-slim AS base
RUN groupadd --system --gid 900 gateway \
 && useradd --system --uid 901 --gid gateway --home-dir /nonexistent --shell /usr/sbin/nologin haproxy \
 && useradd --system --uid 902 --gid gateway --home-dir /nonexistent --shell /usr/sbin/nologin mapsmith \
 && useradd --system --uid 903 --user-group --home-dir /nonexistent --shell /usr/sbin/nologin mocks \
 && install -d -m 750 -o haproxy  -g gateway /run/haproxy \
 && install -d -m 755 -o mapsmith -g gateway /etc/haproxy/maps \
 && install -d -m 700 -o mapsmith -g gateway /run/mapsmith /var/lib/mapsmith
COPY --chown=mapsmith:gateway --chmod=644 haproxy/maps/ /etc/haproxy/maps/
COPY --chmod=755 docker/http-ok /usr/local/bin/http-ok

FROM base AS mocks
COPY --from=binaries /binaries/mocks /usr/local/bin/mocks
USER mocks
ENTRYPOINT ["mocks"]

FROM base AS haproxy
RUN apt-get update \
 && apt-get install --yes --no-install-recommends haproxy \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --chmod=644 haproxy/haproxy.cfg /etc/haproxy/haproxy.cfg
# Within a container loopback reaches nobody; what is published, and to whom, is said where it is run.
ENV GATEWAY_BIND=:8080 STATS_BIND=:8081
EXPOSE 8080 8081
USER haproxy:gateway
# Lets the requests under way finish.
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"]

FROM base AS mapsmith
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=binaries /binaries/mapsmith /usr/local/bin/mapsmith
# Large tables go back to the system when they are dropped (as in systemd/mapsmith.service).
ENV MALLOC_MMAP_THRESHOLD_=131072
EXPOSE 7070
USER mapsmith:gateway
ENTRYPOINT ["mapsmith"]
CMD ["run", "-c", "/etc/mapsmith/mapsmith.toml"]
