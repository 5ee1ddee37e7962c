# PostgreSQL as Debian has it, with the settings beside this file.

FROM debian:bookworm-slim
# Debian's package would make a database cluster of its own.
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-common \
    && sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
    && apt-get install -y --no-install-recommends postgresql-15 && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner postgres --group postgres --mode 700 /var/lib/postgresql/store
COPY postgresql.conf pg_hba.conf /etc/postgresql/
COPY postgres.sh /usr/local/bin/serve-postgres
ENV PATH=/usr/lib/postgresql/15/bin:$PATH LANG=C.UTF-8
USER postgres
VOLUME /var/lib/postgresql/store
EXPOSE 5432
HEALTHCHECK --interval=2s --timeout=3s --start-period=60s --retries=5 CMD ["pg_isready", "-q"]
# Ends connections, writes everything and stops: PostgreSQL's fast shutdown.
STOPSIGNAL SIGINT
ENTRYPOINT ["serve-postgres"]
