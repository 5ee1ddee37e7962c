# Two stages: everything is compiled in the first, the second holds the program and what a Debian needs to run it.

FROM rust:1.95-slim-bookworm AS build
RUN command -v cc >/dev/null || (apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev)
WORKDIR /build
# The dependencies first, against an empty program: this layer is made again only when they change. The other
# member of the workspace is never built here, but cargo wants to see it.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY bench/Cargo.toml bench/Cargo.toml
RUN mkdir src bench/src && echo 'fn main() {}' | tee src/main.rs > bench/src/main.rs && touch src/lib.rs \
    && cargo build --release --locked && rm -r src
COPY config config
COPY src src
# The times of copied files may be older than those of the empty program.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin sekali \
    && install --directory --owner sekali --group sekali /app/data
COPY --from=build /build/target/release/sekali /usr/local/bin/sekali
COPY config/default.toml /app/config/default.toml
WORKDIR /app
USER sekali
# The world outside of the container reaches it only through a published port.
ENV SEKALI_BIND=0.0.0.0:8080 \
    SEKALI_OPS_BIND=0.0.0.0:8081 \
    SEKALI_STORE=sqlite:/app/data/sekali.db
VOLUME /app/data
# 8081 has health and metrics alone, which no client of 8080 can fill.
EXPOSE 8080 8081
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=5 CMD ["sekali", "health", "--url", "http://127.0.0.1:8081"]
# Time for `server.shutdown_timeout`; Docker kills 10 s after it by default.
STOPSIGNAL SIGTERM
ENTRYPOINT ["sekali"]
CMD ["serve"]
