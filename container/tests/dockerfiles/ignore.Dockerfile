# What .dockerignore leaves out.
FROM scratch
COPY . /all
