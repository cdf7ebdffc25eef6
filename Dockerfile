# The images, one for each program: docker build --target operator -t tidings-operator:0.1.0 .
# Targets: operator, sidecar, cli. Why static, and why one each: docs/decisions/0003-images.md.
# tests/node/image packs the same without an engine. It reads the last four stages of this file.
ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-bookworm AS build
WORKDIR /tidings
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    programs=$(image/build) \
    && for program in tidings-operator tidings-sidecar tidings; do \
         image/rootfs "$program" "$programs" "/rootfs/$program" || exit 1; \
       done

FROM scratch AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532

FROM base AS operator
LABEL org.opencontainers.image.title="tidings-operator" \
      org.opencontainers.image.description="Turns Webhook objects into the plans of Tidings' sidecars"
COPY --from=build /rootfs/tidings-operator/ /
ENTRYPOINT ["/tidings-operator"]

FROM base AS sidecar
LABEL org.opencontainers.image.title="tidings-sidecar" \
      org.opencontainers.image.description="Stores an auth server's events, and delivers them as webhooks"
COPY --from=build /rootfs/tidings-sidecar/ /
ENTRYPOINT ["/tidings-sidecar"]

FROM base AS cli
LABEL org.opencontainers.image.title="tidings" \
      org.opencontainers.image.description="The command line of Tidings"
COPY --from=build /rootfs/tidings/ /
ENTRYPOINT ["/tidings"]
