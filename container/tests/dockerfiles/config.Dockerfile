# What images say about how they are run.
FROM scratch
ENV A=1 B="two words" C='single $A'
ENV D=$A$A E=${NONE:-default} F=${A:+set} \
    G="quoted $B"
ENV OLD the whole line
LABEL one=1 "two.three"="with space"
EXPOSE 80 53/udp
VOLUME /data
VOLUME ["/json"]
WORKDIR /w
WORKDIR x/y
USER 7:8
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/bin/program", "fixed"]
HEALTHCHECK --interval=5s --timeout=1m30s --retries=2 CMD test -e /x
SHELL ["/bin/other", "-c"]
CMD ["first", "second one"]
