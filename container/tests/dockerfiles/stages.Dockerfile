# Stages, arguments, and copies from one to the other.
ARG BASE=scratch
FROM ${BASE} AS tools
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir /out && echo built > /out/result && chown 3:4 /out/result
FROM tools AS unused
RUN exit 1
FROM scratch
ARG VERSION=1.0
LABEL version=$VERSION
COPY --from=tools /out /out
COPY --from=0 /out/result /renamed
CMD ["/bin/true"]
