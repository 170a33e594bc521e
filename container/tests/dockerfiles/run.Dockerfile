# Commands, and layers that take away what those below have.
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ARG WHO=somebody
ENV NAME="n a m e"
RUN echo "$NAME $WHO" > /said && \
    # a comment in between
    mkdir -p /d/e && echo 1 > /d/e/f && chmod 700 /d && chown 5:6 /d/e/f
RUN rm -r /d/e && ln -s e /d/link && ln /said /d/hard
RUN rm -r /d && mkdir /d && touch /d/new
WORKDIR /made/by/workdir
RUN pwd > here; umask 027; mkdir private
SHELL ["/bin/sh", "-e", "-c"]
RUN false || echo "$-" | grep -c e > /shell-flags
