# The image of faas itself: one static program, and the authorities that it trusts. scripts/image puts both into the context.
FROM scratch
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY faas /faas
USER 65532:65532
ENTRYPOINT ["/faas"]
