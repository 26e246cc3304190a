# The management service of tinyFaaS, which starts everything else:
#
#   docker build -t tinyfaas-mgmt .
#   docker run -v /var/run/docker.sock:/var/run/docker.sock -p 5000:8080 --name tinyfaas-mgmt -d tinyfaas-mgmt tinyfaas-mgmt
#
# See docs/guides/docker.md.

FROM rust:1-slim-bookworm AS build
WORKDIR /tinyfaas
COPY . .
RUN cargo xtask dist /out

FROM scratch
COPY --from=build /out/ /
ENTRYPOINT ["/tinyfaas", "mgmt"]
