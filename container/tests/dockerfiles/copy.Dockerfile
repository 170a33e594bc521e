# Where files go, and as whose.
FROM scratch
COPY busybox /bin/busybox
COPY passwd group /etc/
COPY tree /whole
COPY tree/ /whole/again/
COPY tree/*.txt docs/[r]eadme? /many/
COPY --chown=ada:staff tree/a.txt /owned/by/name
COPY --chown=7:8 --chmod=0604 tree/a.txt /owned/numbers
COPY ["tree/with space", "/with space"]
WORKDIR /work
COPY tree/a.txt renamed
COPY tree/a.txt ./
ADD archive.tar.gz /unpacked/
COPY archive.tar.gz /kept.tar.gz
